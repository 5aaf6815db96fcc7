/* SPDX-License-Identifier: BSD-3-Clause */
#include "versions.h"

#include <errno.h>
#include <sys/mman.h>

#include "stores.h"

/* A bucket ends early where it has such a part of all bytes, or spans such a part of an age: so coarse is
 * what the floor leaves alive. */
#define PARTS 16u

int versions_init(struct versions *v)
{
	void *ring = mmap(NULL, BUCKETS * sizeof *v->buckets, PROT_READ | PROT_WRITE,
			  MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	if (ring == MAP_FAILED)
		return -ENOMEM;
	pthread_mutex_init(&v->mutex, NULL);
	v->buckets = ring;
	/* Version 0 is none. */
	v->next = v->floor = BUCKET_VERSIONS;
	return 0;
}

void versions_destroy(struct versions *v)
{
	if (v->buckets)
		munmap(v->buckets, BUCKETS * sizeof *v->buckets);
	pthread_mutex_destroy(&v->mutex);
}

static struct bucket *bucket_of(struct versions *v, uint64_t version)
{
	return &v->buckets[(version >> BUCKET_BITS) % BUCKETS];
}

static uint64_t end_of(uint64_t version)
{
	return (version | (BUCKET_VERSIONS - 1)) + 1;
}

/* --- What is to be deleted ---------------------------------------------------------------------- */

/* Two that come at once to a full ring may both think that there is room for one: one of them is not
 * deleted, and the store forgets it in time. */
static void give_up(struct versions *v, uint64_t first, uint64_t n)
{
	if (count_of(&v->gone_in) - count_of(&v->gone_out) >= GONE_MOST)
		return;
	uint64_t at = __atomic_fetch_add(&v->gone_in, 1, __ATOMIC_RELAXED) % GONE_MOST;
	__atomic_store_n(&v->gone[at], version_word(first, n), __ATOMIC_RELAXED);
}

bool versions_next_gone(struct versions *v, uint64_t *first, unsigned *n)
{
	while (v->gone_out != count_of(&v->gone_in)) {
		uint64_t at = v->gone_out % GONE_MOST;
		uint64_t word = __atomic_exchange_n(&v->gone[at], 0, __ATOMIC_RELAXED);
		__atomic_store_n(&v->gone_out, v->gone_out + 1, __ATOMIC_RELAXED);
		*first = version_of(word);
		*n = (unsigned)version_bytes(word);
		if (word)
			return true;           /* 0: its place is taken, and it is not there yet */
	}
	return false;
}

void versions_return_gone(struct versions *v, uint64_t first, unsigned n)
{
	give_up(v, first, n);
}

/* --- The floor ---------------------------------------------------------------------------------- */

/* The bucket at the floor goes: under the mutex. */
static void raise_floor(struct versions *v, bool may_be_stored)
{
	uint64_t first = v->floor, end = end_of(first);

	if (may_be_stored && count_of(&bucket_of(v, first)->pages))
		give_up(v, first, bucket_of(v, first)->end - first);
	/* The last one is not filled any more. */
	if (v->next < end)
		__atomic_store_n(&v->next, end, __ATOMIC_RELAXED);
	__atomic_store_n(&v->floor, end, __ATOMIC_RELEASE);
}

static uint64_t sum(struct versions *v, uint64_t *pages)
{
	uint64_t bytes = 0;

	*pages = 0;
	for (uint64_t at = v->floor; at < v->next; at = end_of(at)) {
		bytes += count_of(&bucket_of(v, at)->bytes);
		*pages += count_of(&bucket_of(v, at)->pages);
	}
	return bytes;
}

/* The bucket that the next version belongs to begins, and leaves room to fill it. */
static void begin(struct versions *v, uint64_t now)
{
	uint64_t pages, bytes = sum(v, &pages);
	uint64_t most = v->most_bytes ? v->most_bytes - v->most_bytes / PARTS : UINT64_MAX;
	struct bucket *b = bucket_of(v, v->next);

	while (v->floor < v->next &&
	       (bytes > most || (v->next - v->floor) >> BUCKET_BITS >= BUCKETS - 1)) {
		uint64_t oldest = count_of(&bucket_of(v, v->floor)->bytes);
		bytes -= oldest < bytes ? oldest : bytes;
		raise_floor(v, true);
	}
	__atomic_store_n(&b->pages, 0, __ATOMIC_RELAXED);
	__atomic_store_n(&b->bytes, 0, __ATOMIC_RELAXED);
	b->begun = now;
}

static bool is_full(struct versions *v, const struct bucket *b, uint64_t now)
{
	return (v->most_bytes && count_of(&b->bytes) >= v->most_bytes / PARTS) ||
	       now >= b->begun + v->most_age / PARTS;
}

uint64_t versions_draw(struct versions *v, uint64_t now)
{
	pthread_mutex_lock(&v->mutex);
	if (v->next % BUCKET_VERSIONS && is_full(v, bucket_of(v, v->next), now))
		__atomic_store_n(&v->next, end_of(v->next), __ATOMIC_RELAXED);
	if (v->next % BUCKET_VERSIONS == 0)
		begin(v, now);
	uint64_t version = v->next;
	bucket_of(v, version)->last = now;
	bucket_of(v, version)->end = version + 1;
	__atomic_store_n(&v->next, version + 1, __ATOMIC_RELAXED);
	pthread_mutex_unlock(&v->mutex);
	return version;
}

void versions_tick(struct versions *v, uint64_t now)
{
	pthread_mutex_lock(&v->mutex);
	uint64_t pages, bytes = v->most_bytes ? sum(v, &pages) : 0;
	while (v->floor < v->next) {
		struct bucket *oldest = bucket_of(v, v->floor);
		bool is_open = v->next < end_of(v->floor);
		bool is_empty = !is_open && !count_of(&oldest->pages);
		/* The store forgets by itself what is too old. */
		bool is_old = now >= oldest->last + v->most_age;
		bool is_too_much = v->most_bytes && bytes > v->most_bytes;
		if (!is_empty && !is_old && !is_too_much)
			break;
		uint64_t here = count_of(&oldest->bytes);
		bytes -= here < bytes ? here : bytes;
		raise_floor(v, is_too_much);
	}
	pthread_mutex_unlock(&v->mutex);
}

void versions_set_most(struct versions *v, uint64_t bytes, uint64_t ns)
{
	pthread_mutex_lock(&v->mutex);
	v->most_bytes = bytes;
	v->most_age = ns;
	pthread_mutex_unlock(&v->mutex);
}

void versions_alive(struct versions *v, uint64_t *pages, uint64_t *bytes)
{
	pthread_mutex_lock(&v->mutex);
	*bytes = sum(v, pages);
	pthread_mutex_unlock(&v->mutex);
}

/* --- Versions of pages -------------------------------------------------------------------------- */

bool versions_note(struct versions *v, uint64_t word)
{
	struct bucket *b = bucket_of(v, version_of(word));

	if (!version_is_alive(v, word))
		return false;
	count_up(&b->pages);
	count_add(&b->bytes, version_bytes(word));
	return true;
}

/* Between the look at the floor and the subtraction the bucket may go; its counts are nobody's then, until
 * the ring has come round. */
void versions_forget(struct versions *v, uint64_t word, bool may_be_stored)
{
	struct bucket *b = bucket_of(v, version_of(word));

	if (!version_is_alive(v, word))
		return;
	count_sub(&b->pages, 1);
	count_sub(&b->bytes, version_bytes(word));
	if (may_be_stored)
		give_up(v, version_of(word), 1);
}
