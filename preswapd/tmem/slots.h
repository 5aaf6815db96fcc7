/* SPDX-License-Identifier: BSD-3-Clause */
/* Slots are taken and released. */
#ifndef PRESWAPD_SLOTS_H
#define PRESWAPD_SLOTS_H

#include "slabs.h"

/* Staging leaves this many bytes free, so that compressed copies can begin slabs of their class. */
#define STAGING_SPARES (2u << 20)

/* A taken slot for a payload of `length` bytes, its state word 0; or -ENOSPC (the limit),
 * -ENOMEM (shared memory, or the host), -EAGAIN. */
int slots_alloc(struct slabs *, unsigned length, unsigned flags, uint32_t *ref);
/* A taken slot for a page that leaves a longer one, of `class`: shorter than that.  -ENOSPC, -ENOMEM:
 * there is none, or a put might miss the memory. */
int slots_alloc_shorter(struct slabs *, unsigned length, unsigned class, uint32_t *ref);
/* Taken slots for whole pages that are to be compressed later, with that codec: how many of n, or
 * -EAGAIN.  None where they would take room that puts or the copies of staged pages need. */
int slots_alloc_staged(struct slabs *, enum tmem_compress, unsigned n, unsigned flags,
		       uint32_t *refs);
/* Taken slots for whole pages that stay as they are: how many of n, or -EAGAIN. */
int slots_alloc_raw(struct slabs *, unsigned n, unsigned flags, uint32_t *refs);
void slots_release(struct slabs *, uint32_t ref);
void slots_release_all(struct slabs *, const uint32_t *refs, unsigned n);
bool slots_taken(struct slabs *, uint32_t ref);

#endif
