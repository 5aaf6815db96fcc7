/* SPDX-License-Identifier: BSD-3-Clause */
#include "copies.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "disk.h"

_Static_assert(DISK_RUN_PAGES <= REMOTE_WANTS_MOST, "a run is asked for at once");

/* Zeros that take memory only where they are written. */
static size_t words_bytes(const struct device *d)
{
	return d->pages * sizeof *d->remote.words;
}

int copies_use(struct device *d, const struct remote_ops *ops, struct remote *remote,
	       const uint8_t id[REMOTE_DEVICE_BYTES])
{
	if (!d->remote.words) {
		void *words = mmap(NULL, words_bytes(d), PROT_READ | PROT_WRITE,
				   MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
		if (words == MAP_FAILED)
			return -ENOMEM;
		d->remote.ops = ops;
		d->remote.remote = remote;
		memcpy(d->remote.id, id, REMOTE_DEVICE_BYTES);
		__atomic_store_n(&d->remote.words, words, __ATOMIC_RELEASE);
	}
	__atomic_store_n(&d->remote.is_on, true, __ATOMIC_RELEASE);
	return 0;
}

void copies_stop(struct device *d)
{
	__atomic_store_n(&d->remote.is_on, false, __ATOMIC_RELEASE);
}

void copies_release(struct device *d)
{
	if (d->remote.words)
		munmap(d->remote.words, words_bytes(d));
	d->remote.words = NULL;
	d->remote.is_on = false;
}

size_t copies_bytes(const struct device *d)
{
	return d->remote.words ? words_bytes(d) : 0;
}

/* Of two that forget one word, one gives it up. */
void copies_forget_word(struct device *d, uint64_t *word)
{
	uint64_t before = __atomic_exchange_n(word, 0, __ATOMIC_RELAXED);

	if (before)
		d->remote.ops->forget(d->remote.remote, before);
}

/* --- A page that is moved to disk --------------------------------------------------------------- */

struct copies {
	struct device *device;
	uint64_t first;
	struct remote_set sets[];      /* of each page; word 0: it is not set */
};

struct copies *copies_begin(struct device *d, uint64_t first, uint64_t pages)
{
	if (!copies_are_on(d) || !d->remote.ops->takes(d->remote.remote))
		return NULL;
	/* In vain, where there is no memory: it is a copy. */
	struct copies *c = malloc(sizeof *c + pages * sizeof c->sets[0]);
	if (!c)
		return NULL;
	*c = (struct copies){d, first};
	for (uint64_t i = 0; i < pages; i++)
		c->sets[i].word = 0;
	return c;
}

void copies_seal(struct copies *c, uint64_t page, const struct tmem_copy *copy)
{
	struct device *d = c->device;
	struct tmem_packed packed;

	if (!d->tmem->open_packed(d->host, copy, &packed))
		d->remote.ops->seal(d->remote.remote, d->remote.id, page, &packed, &c->sets[page - c->first]);
}

void copies_note(struct copies *c, uint64_t page)
{
	struct device *d = c->device;
	struct remote_set *s = &c->sets[page - c->first];

	if (s->word && d->remote.ops->set(d->remote.remote, s))
		__atomic_store_n(&d->remote.words[page], s->word, __ATOMIC_RELEASE);
}

void copies_end(struct copies *c)
{
	c->device->remote.ops->push(c->device->remote.remote);
	free(c);
}

void copies_pass(struct device *d, uint64_t pages)
{
	if (copies_are_on(d))
		d->remote.ops->pass(d->remote.remote, pages);
}

/* --- Pages that are read ------------------------------------------------------------------------ */

/* It is not asked for again; and deleted, as what is wrong is of no use, and what is missing may have been on its
 * way there.  What the word has become meanwhile stays. */
static void give_up(struct device *d, const struct remote_want *w)
{
	uint64_t word = w->word;

	if (__atomic_compare_exchange_n(&d->remote.words[w->page], &word, 0, false, __ATOMIC_RELAXED,
					__ATOMIC_RELAXED))
		d->remote.ops->forget(d->remote.remote, word);
}

bool copies_read(struct device *d, uint64_t first, uint64_t pages, uint8_t *to, bool *wanted)
{
	struct remote_want wants[REMOTE_WANTS_MOST];
	bool in_time = true;
	unsigned n = 0;

	for (uint64_t i = 0; i < pages; i++) {
		uint64_t word = wanted[i] ? __atomic_load_n(&d->remote.words[first + i], __ATOMIC_ACQUIRE) : 0;
		if (word)
			wants[n++] = (struct remote_want){.page = first + i, .word = word,
							  .to = to + i * PAGE_BYTES};
	}
	if (n)
		d->remote.ops->get(d->remote.remote, d->remote.id, wants, n, d->tmem->unpack);
	for (unsigned i = 0; i < n; i++) {
		if (wants[i].is_there)
			wanted[wants[i].page - first] = false;
		else if (wants[i].is_gone)
			give_up(d, &wants[i]);
		in_time &= !wants[i].is_late;
	}
	return in_time;
}
