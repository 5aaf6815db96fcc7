/* SPDX-License-Identifier: BSD-3-Clause */
/* Pages in a form that only who has the key can make, and in which nothing can be changed.
 *
 * AES-256-GCM with a key drawn from somebody's key and from what is sealed with it: a session, by its
 * number, or an image, by its digest.  The nonce is the version, which is never used twice in a session, or is
 * drawn from all that is sealed under it; the device, the page, the version, the codec and the length are
 * authenticated beside the bytes.  A name is a number under AES-256 with a second key: it tells a
 * store nothing.
 *
 * A value: codec, length (2 bytes), tag (16 bytes), a nonce that is no version, the page's bytes.
 */
#ifndef PRESWAPD_SEAL_H
#define PRESWAPD_SEAL_H

#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>

#include "remote.h"

#define SEAL_KEY_BYTES 32u
#define SEAL_SESSION_BYTES 16u
#define SEAL_NAME_BYTES 16u
#define SEAL_OF_MOST 32u

struct seal_context;

struct seal {
	uint8_t pages_key[SEAL_KEY_BYTES], names_key[SEAL_KEY_BYTES], nonces_key[SEAL_KEY_BYTES];
	pthread_mutex_t mutex;
	struct seal_context *idle;     /* as many as threads were at it at once */
};

/* Which page a value is, and no other. */
struct seal_of {
	const uint8_t *device;         /* REMOTE_DEVICE_BYTES */
	uint64_t page, version;
	const uint8_t *nonce;          /* NULL: the version */
};

/* The keys are of that kind of thing, a few words, and of the one that has the name `of`, SEAL_OF_MOST bytes at
 * most.  -ENOMEM: libcrypto has nothing for it. */
int seal_init(struct seal *, const uint8_t key[SEAL_KEY_BYTES], const char *kind, const uint8_t *of,
	      size_t of_bytes);
void seal_destroy(struct seal *);

/* A nonce that no other page has, and no other content of it: it is drawn from them.  -ENOMEM. */
int seal_nonce(struct seal *, const struct seal_of *, const struct tmem_packed *,
	       uint8_t nonce[REMOTE_NONCE_BYTES]);
/* Into REMOTE_SEAL_BYTES, and the page's length bytes.  -ENOMEM. */
int seal_page(struct seal *, const struct seal_of *, const struct tmem_packed *, uint8_t *head,
	      uint8_t *bytes);
/* `bytes` lie behind the head of a value, and any nonce; the page that they are, still
 * compressed, is in `to`, a page's room, then.  -EBADMSG: it is not this page; -ENOMEM. */
int seal_open(struct seal *, const struct seal_of *, const uint8_t head[REMOTE_SEAL_BYTES],
	      const uint8_t *bytes, unsigned length, uint8_t *to, struct tmem_packed *);
/* The names of the versions, side by side.  -ENOMEM. */
int seal_names(struct seal *, const uint64_t *versions, unsigned n, uint8_t *names);

#endif
