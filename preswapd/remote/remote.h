/* SPDX-License-Identifier: BSD-3-Clause */
/* What the swap device may call of the remote tier, and nothing else.
 *
 * A store beside this host has copies of pages that lie in the disk file.  It is never the only one to
 * have a page, and nothing that it answers is believed: a page is sealed here under its version, a
 * number that is never used again, and opens under that version only.  So a page that is asked for
 * by the version that the disk file has is that page, or it is not there.
 *
 * None of it needs the GIL.  Nothing but get() waits.
 */
#ifndef PRESWAPD_REMOTE_H
#define PRESWAPD_REMOTE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "tmem.h"

#define REMOTE_DEVICE_BYTES 16u        /* a device's identity in the sessions of one server */
#define REMOTE_SEAL_BYTES 19u          /* codec, length, tag: what a value has before the page's bytes */
#define REMOTE_NONCE_BYTES 12u         /* behind that, of a page that many hosts have */
#define REMOTE_HEAD_MOST (REMOTE_SEAL_BYTES + REMOTE_NONCE_BYTES)
#define REMOTE_VALUE_MOST (REMOTE_HEAD_MOST + TMEM_PAGE)
/* A set as it goes out: the frame's head, a name, a value. */
#define REMOTE_SET_MOST (16u + 16u + REMOTE_VALUE_MOST)

/* A version and the bytes of its value; 0: none. */
#define REMOTE_LENGTH_BITS 13u

struct remote;

/* A page that is asked for. */
struct remote_want {
	uint64_t page, word;           /* the word of that page, not 0 */
	uint8_t *to;                   /* a page's room, in which anything may lie afterwards */
	bool is_there;                 /* the answer: it lies in `to` */
	bool is_gone;                  /* nobody has this version: its word is to be forgotten */
	bool is_late;                  /* it was waited for, and did not come in time */
	/* What came, while it is asked for. */
	uint8_t status;
	uint8_t head[REMOTE_HEAD_MOST];
	uint16_t length;
};
#define REMOTE_WANTS_MOST 256u

/* A page that is going to be set, as its frame. */
struct remote_set {
	uint64_t word;                 /* 0: it could not be sealed */
	uint32_t length;
	uint8_t frame[REMOTE_SET_MOST];
};

struct remote_ops {
	/* Whether there is anybody to set pages for. */
	bool (*takes)(struct remote *);
	/* So many pages are not going to be set, as there was nobody. */
	void (*pass)(struct remote *, uint64_t pages);
	/* Seals a page under a new version, where there is room to set it. */
	void (*seal)(struct remote *, const uint8_t device[REMOTE_DEVICE_BYTES], uint64_t page,
		     const struct tmem_packed *, struct remote_set *);
	/* It is to be sent: false, it is not going to be.  Never waits. */
	bool (*set)(struct remote *, const struct remote_set *);
	/* What was set goes out.  Never waits. */
	void (*push)(struct remote *);
	/* The word is not that of its page any more; the store may still have what it names.  Under a page lock: a
	 * few atomic operations. */
	void (*forget)(struct remote *, uint64_t word);
	/* Asks for all at once, REMOTE_WANTS_MOST at most; returns when all were answered, or the time is over: how
	 * many are there. */
	unsigned (*get)(struct remote *, const uint8_t device[REMOTE_DEVICE_BYTES], struct remote_want *,
			unsigned n, int (*unpack)(const struct tmem_packed *, void *page));
};

/* Both, in a capsule of this name: who asks for the operations so loads this extension, and libcrypto
 * with it, only where there is a tier. */
#define REMOTE_CAPSULE "preswapd.remote"

struct remote_handle {
	const struct remote_ops *ops;
	struct remote *remote;
};

/* --- Pages that other hosts have too ------------------------------------------------------------ */

/* The pages of one image, by its digest: hosts that have the key and the image name and seal them alike.
 * They have no versions, as what has the digest never changes. */
struct share;

/* Pages that were asked for, by what came; atomic. */
struct remote_counters {
	uint64_t reads, misses, late, away, wrong;
};

struct share_ops {
	/* Whether sets are taken at the moment. */
	bool (*takes)(struct share *);
	/* A page is not going to be set, as they were not: whether it should have been. */
	bool (*pass)(struct share *);
	/* It is to be sent: false, it is not going to be.  Never waits. */
	bool (*set)(struct share *, uint64_t page, const uint8_t *from, enum tmem_compress,
		    int (*pack)(enum tmem_compress, const void *page, uint8_t out[TMEM_PAGE],
				struct tmem_packed *));
	void (*push)(struct share *);
	/* As in remote_ops, without words. */
	unsigned (*get)(struct share *, struct remote_want *, unsigned n,
			int (*unpack)(const struct tmem_packed *, void *page), struct remote_counters *);
};

#define SHARE_CAPSULE "preswapd.share"

struct share_handle {
	const struct share_ops *ops;
	struct share *share;
};

#endif
