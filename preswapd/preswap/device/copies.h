/* SPDX-License-Identifier: BSD-3-Clause */
/* Copies of the device's pages on disk that a store beside this host has: noted, forgotten, read.
 *
 * Each page has a word: the version of it that the store is believed to have, 0 for none.  Under a mark of the page,
 * shared or alone: while P is DISK, the page's content on disk is that of its word's version.  Why that is so:
 * docs/concurrency.md.
 */
#ifndef PRESWAPD_COPIES_H
#define PRESWAPD_COPIES_H

#include "device.h"

/* -ENOMEM.  From then on, until copies_stop(); again only with the same ones. */
int copies_use(struct device *, const struct remote_ops *, struct remote *,
	       const uint8_t id[REMOTE_DEVICE_BYTES]);
void copies_stop(struct device *);
/* Gives back what it holds, when nothing is in flight any more. */
void copies_release(struct device *);
size_t copies_bytes(const struct device *);

static inline bool copies_are_on(const struct device *d)
{
	return __atomic_load_n(&d->remote.is_on, __ATOMIC_ACQUIRE);
}

void copies_forget_word(struct device *, uint64_t *word);

/* The page becomes something else, or its blocks on disk are written.  Before that; under its lock, or its mark alone. */
static inline void copies_forget(struct device *d, uint64_t page)
{
	uint64_t *words = __atomic_load_n(&d->remote.words, __ATOMIC_ACQUIRE);

	if (words && __atomic_load_n(&words[page], __ATOMIC_RELAXED))
		copies_forget_word(d, &words[page]);
}

/* --- A page that is moved to disk --- */

/* What a writeback sets, of some pages side by side; NULL: nothing, now. */
struct copies;
struct copies *copies_begin(struct device *, uint64_t first, uint64_t pages);
/* What is about to be written: sealed, and not sent yet. */
void copies_seal(struct copies *, uint64_t page, const struct tmem_copy *);
/* It is on disk, and nowhere else.  Under its mark alone. */
void copies_note(struct copies *, uint64_t page);
/* What was noted goes out. */
void copies_end(struct copies *);
/* So many pages are on disk, and nowhere else, with no copies begun. */
void copies_pass(struct device *, uint64_t pages);

/* --- Pages that are read --- */

/* Asks for those of the pages whose `wanted` is set.  What comes is in `to`, each page at its place, and its `wanted`
 * not set any more; of the other pages nothing is changed, but the room of a wanted one may hold anything.  Under
 * their mark.  False: some of them did not come in time. */
bool copies_read(struct device *, uint64_t first, uint64_t pages, uint8_t *to, bool *wanted);

#endif
