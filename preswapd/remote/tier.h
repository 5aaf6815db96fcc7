/* SPDX-License-Identifier: BSD-3-Clause */
/* The remote tier as a whole: what is sealed, what the store has, who speaks to it, and when nobody does. */
#ifndef PRESWAPD_TIER_H
#define PRESWAPD_TIER_H

#include "courier.h"
#include "latency.h"
#include "seal.h"
#include "versions.h"

struct remote {
	struct seal seal;
	struct versions versions;
	struct courier courier;
	bool is_enabled;               /* atomic */
	uint64_t timeout;              /* ns; atomic */
	uint64_t in_vain;              /* gets, one after the other, of which nothing came in time; atomic */
	uint64_t in_vain_at;           /* ns, when the last of them was given up; atomic */
	uint64_t away;                 /* gets, one after the other, whose nodes are away; atomic */
	uint64_t open_until;           /* ns: the breaker is open, and nothing is asked before; 0: it is closed; atomic */
	uint64_t heard;                /* how often the courier had said how the store is, when it opened; atomic */
	bool is_deleting;              /* a thread takes what is to be deleted; atomic */
	struct remote_counters count;
	struct latency gets;
};

extern const struct remote_ops remote_ops;

/* In zeros.  -ENOMEM: it is to be destroyed all the same. */
int tier_init(struct remote *, const uint8_t key[SEAL_KEY_BYTES],
		const uint8_t session[SEAL_SESSION_BYTES]);
void tier_destroy(struct remote *);
void tier_set_timeout(struct remote *, uint64_t ns);
void tier_set_enabled(struct remote *, bool);
/* A courier that is new is asked. */
int tier_connect(struct remote *, int fd);
/* The store is left alone for a while: three gets in a row were in vain, or all of its nodes are away. */
bool tier_is_open(const struct remote *);
/* Whether sets are taken at the moment. */
bool tier_takes(struct remote *);
/* Pages that are not set are counted, unless none are to be: false. */
bool tier_pass(struct remote *, uint64_t pages);
/* Asks for pages by their names, whose values have so long a head: false, not at the moment. */
bool tier_ask(struct remote *, struct remote_want **, unsigned n, const uint8_t *names, unsigned head);
/* What came, counted, but for a value: true, that is to be opened. */
bool tier_has_value(struct remote_want *, struct remote_counters *);
/* It was opened and unpacked, with that error. */
void tier_opened(struct remote_want *, int err, struct remote_counters *);
/* Once a second. */
void tier_tick(struct remote *);

#endif
