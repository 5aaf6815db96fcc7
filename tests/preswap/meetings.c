/* SPDX-License-Identifier: BSD-3-Clause */
/* What meets a page while it goes to disk or comes back from there, step by step; a program for
 * tests, a case a run.
 *
 * Reads of the disk file and writes to it are stopped, and, where a case says so, what compresses a
 * page: the linker makes them calls of __wrap_disk_read() and so on.  So are gets and sets of a store that
 * has copies of pages.  Another thread does then what the case says, and ends, or waits for a busy mark and ends
 * later.  Ends with 0 when all was right.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "codec.h"
#include "copies.h"
#include "owner.h"
#include "places.h"
#include "promotion.h"
#include "requests.h"

#define PAGES 256u
#define PAGE 5u                        /* the one that is met */
#include "lone_device.h"

/* --- a page in versions, all of one size; 0 is zeros --- */

static const uint8_t *version(uint64_t number)
{
	static _Thread_local uint64_t page[PAGE_BYTES / 8];

	for (size_t i = 0; i < PAGE_BYTES / 8; i++)
		page[i] = number * 0x9e3779b97f4a7c15ull * (i + 1);
	return (const uint8_t *)page;
}

static void put(uint64_t number)
{
	struct progress p = {0};

	CHECK(!request_write(&d, version(number), PAGE_BYTES, PAGE * PAGE_BYTES, 0, &p));
}

static void write_to_disk(uint64_t number)
{
	struct progress p = {0};

	CHECK(!request_write(&d, version(number), PAGE_BYTES, PAGE * PAGE_BYTES, REQUEST_FUA, &p));
}

static void trim(void)
{
	CHECK(!request_trim(&d, PAGE_BYTES, PAGE * PAGE_BYTES, 0));
}

static bool reads(uint64_t number)
{
	uint8_t into[PAGE_BYTES];
	struct progress p = {0};

	return !request_read(&d, into, PAGE_BYTES, PAGE * PAGE_BYTES, 0, &p) &&
	       !memcmp(into, version(number), PAGE_BYTES);
}

static struct tmem_found slot(void)
{
	struct tmem_handle handle = device_handle(&d, PAGE);

	d.tmem->lock(d.host, &handle);
	struct tmem_found found = d.tmem->find(d.host, &handle);
	d.tmem->unlock(d.host, &handle);
	return found;
}

/* Nothing that was built and not published is left, and all says the same. */
static bool is_in_order(void)
{
	struct tmem_stats stats;
	bool has_slot = slot().ref != 0, is_tmem = device_state(&d, PAGE) == TMEM;

	tmem_get_stats(d.host, &stats);
	return has_slot == is_tmem && stats.stored_pages == is_tmem &&
	       count_of(&d.count.preswap_pages) == is_tmem &&
	       (in_tmem[PAGE / 8] >> PAGE % 8 & 1) == is_tmem &&
	       count_of(&d.count.disk_pages) == (device_state(&d, PAGE) == DISK);
}

/* --- the other thread --- */

static void (*meet)(void);
static pthread_t other;
static bool has_ended;

static void *play(void *what)
{
	void (*play_it)(void);

	memcpy(&play_it, &what, sizeof play_it);
	play_it();
	__atomic_store_n(&has_ended, true, __ATOMIC_RELEASE);
	return NULL;
}

static bool somebody_waits(void)
{
	unsigned marks = 0;

	pthread_mutex_lock(&d.marks.mutex);
	for (const struct mark *m = d.marks.all; m; m = m->next)
		marks++;
	pthread_mutex_unlock(&d.marks.mutex);
	return marks > 1;
}

/* Once, in the middle of a transfer. */
static void let_meet(void)
{
	void (*now)(void) = meet;
	void *what;

	if (!now)
		return;
	meet = NULL;
	memcpy(&what, &now, sizeof what);
	CHECK(!pthread_create(&other, NULL, play, what));
	while (!__atomic_load_n(&has_ended, __ATOMIC_ACQUIRE) && !somebody_waits())
		usleep(1000);
}

int __real_disk_read(const struct disk *, uint64_t first, uint32_t pages, uint8_t *buffer);
int __wrap_disk_read(const struct disk *, uint64_t first, uint32_t pages, uint8_t *buffer);
int __real_disk_write(const struct disk *, uint64_t first, uint32_t pages, const uint8_t *buffer);
int __wrap_disk_write(const struct disk *, uint64_t first, uint32_t pages, const uint8_t *buffer);

int __wrap_disk_read(const struct disk *disk, uint64_t first, uint32_t pages, uint8_t *buffer)
{
	int err = __real_disk_read(disk, first, pages, buffer);

	let_meet();
	return err;
}

int __wrap_disk_write(const struct disk *disk, uint64_t first, uint32_t pages, const uint8_t *buffer)
{
	let_meet();
	return __real_disk_write(disk, first, pages, buffer);
}

/* What meets a page that is packed, its read from disk behind it. */
static void (*meet_packing)(void);

void __real_codec_pack(struct scratch *, enum tmem_compress, const void *, unsigned, uint8_t *,
		       struct tmem_packed *);
void __wrap_codec_pack(struct scratch *, enum tmem_compress, const void *, unsigned, uint8_t *,
		       struct tmem_packed *);

void __wrap_codec_pack(struct scratch *s, enum tmem_compress compress, const void *page,
		       unsigned longest, uint8_t *out, struct tmem_packed *p)
{
	__real_codec_pack(s, compress, page, longest, out, p);
	if (meet_packing) {
		meet = meet_packing;
		meet_packing = NULL;
		let_meet();
	}
}

static void hold_down(void)
{
	device_set_max_pages(&d, 0);
}

static void put_2(void)
{
	put(2);
}

static void put_2_and_trim(void)
{
	put(2);
	trim();
}

/* Freed and filled again: the slot is the same, its sequence number is not. */
static void trim_and_put_2(void)
{
	uint32_t before = slot().ref;

	trim();
	put(2);
	CHECK(slot().ref == before);
}

static void look(void)
{
	CHECK(reads(1));
}

static void put_2_and_write_it_back(void)
{
	struct writeback w;

	put(2);
	CHECK(!owner_writeback(&d, 0, 0, 1, &w) && !w.err);
}

static void write_2_to_disk(void)
{
	write_to_disk(2);
}

static void join(void)
{
	CHECK(!meet && !pthread_join(other, NULL));
}

/* --- back from disk --- */

static uint64_t promoted(void)
{
	return count_of(&d.count.promoted_pages);
}

/* Version 1 is on disk; another thread meets its read. */
static void read_1_and_meet(void (*what)(void))
{
	write_to_disk(1);
	d.promoted_below = PROMOTE_ALL;
	meet = what;
	CHECK(reads(1));
	if (what)
		join();
}

static void read_meets_nobody(void)
{
	read_1_and_meet(NULL);
	CHECK(promoted() == 1 && device_state(&d, PAGE) == TMEM && reads(1));
}

static void read_meets_a_put(void)
{
	read_1_and_meet(put_2);
	CHECK(promoted() == 0 && reads(2));
}

static void read_meets_a_trim(void)
{
	read_1_and_meet(trim);
	CHECK(promoted() == 0 && device_state(&d, PAGE) == HOLE && reads(0));
}

static void read_meets_a_put_and_a_trim(void)
{
	read_1_and_meet(put_2_and_trim);
	CHECK(promoted() == 0 && reads(0));
}

/* A sync begins, finds nothing in tmem, and is to save a map that knows the page. */
static void read_meets_a_sync(void)
{
	write_to_disk(1);
	d.promoted_below = PROMOTE_ALL;
	meet_packing = hold_down;
	CHECK(reads(1));
	join();
	CHECK(promoted() == 0 && device_state(&d, PAGE) == DISK && reads(1));
}

/* Both may share the mark; one of them brings the page back. */
static void read_meets_a_read(void)
{
	read_1_and_meet(look);
	CHECK(promoted() == 1 && reads(1));
}

/* P = DISK again and no slot, but of another page than was read: the mark keeps that from happening
 * before the page that was read has come back or not. */
static void read_meets_a_put_and_its_writeback(void)
{
	read_1_and_meet(put_2_and_write_it_back);
	CHECK(reads(2) && reads(2));
}

static void read_meets_a_write_to_disk(void)
{
	read_1_and_meet(write_2_to_disk);
	CHECK(reads(2) && reads(2));
}

/* --- to disk --- */

/* Each way to write it back: by a shrink, as idle, or as one of the heaviest. */
static unsigned way;

static uint64_t write_back(void)
{
	const struct heavy all = {1, 1, EXTENT_PAGES};
	struct writeback w;
	uint64_t weights[WEIGHT_STEPS] = {0}, page = 0;

	epochs_count(&epochs, 1, monotonic_ns());
	if (way == 0)
		CHECK(!owner_writeback(&d, 0, 0, PAGES, &w));
	if (way == 1)
		CHECK(!owner_writeback_idle(&d, &page, 0, PAGES, &w));
	if (way == 2) {
		CHECK(!owner_weigh(&d, epochs_begin(&epochs), weights));
		CHECK(!owner_writeback_heavy(&d, &page, &all, &w));
	}
	CHECK(!w.err && !w.lost);
	return w.moved;
}

static uint64_t write_1_back_and_meet(void (*what)(void))
{
	put(1);
	meet = what;
	uint64_t moved = write_back();
	if (what)
		join();
	return moved;
}

static void writeback_meets_nobody(void)
{
	CHECK(write_1_back_and_meet(NULL) == 1);
	CHECK(device_state(&d, PAGE) == DISK && reads(1));
}

static void writeback_meets_a_put(void)
{
	CHECK(write_1_back_and_meet(put_2) == 0);
	CHECK(reads(2));
}

static void writeback_meets_a_trim(void)
{
	CHECK(write_1_back_and_meet(trim) == 0);
	CHECK(reads(0));
}

static void writeback_meets_a_slot_filled_again(void)
{
	CHECK(write_1_back_and_meet(trim_and_put_2) == 0);
	CHECK(reads(2));
}

static void writeback_meets_a_read(void)
{
	CHECK(write_1_back_and_meet(look) == 1);
	CHECK(reads(1));
}

static void writeback_meets_a_write_to_disk(void)
{
	CHECK(write_1_back_and_meet(write_2_to_disk) == 1);
	CHECK(reads(2) && device_state(&d, PAGE) == DISK);
}

/* Touched after it was weighed: it stays. */
static void weighed_page_is_read(void)
{
	const struct heavy all = {1, 1, EXTENT_PAGES};
	uint64_t weights[WEIGHT_STEPS] = {0}, page = 0;
	struct writeback w;

	put(1);
	CHECK(!owner_weigh(&d, epochs_begin(&epochs), weights));
	CHECK(reads(1));
	CHECK(!owner_writeback_heavy(&d, &page, &all, &w));
	CHECK(w.moved == 0 && page == PAGES && device_state(&d, PAGE) == TMEM);
}

/* A refault is read from disk, and only where it was written back. */
static void refaults(void)
{
	CHECK(write_1_back_and_meet(NULL) == 1);
	CHECK(reads(1) && reads(1) && count_of(&d.count.refaults) == 1);
	write_to_disk(2);
	CHECK(reads(2) && count_of(&d.count.refaults) == 1);
}

/* --- copies, in a store that has whatever it was given --- */

#define COPIES 8u

static uint8_t copied[COPIES][PAGE_BYTES];
static uint64_t copies_set, passed, asked;
static bool takes_none;
static void (*meet_set)(void);

static bool takes(struct remote *r)
{
	(void)r;
	return !takes_none;
}

static void pass(struct remote *r, uint64_t pages)
{
	(void)r;
	passed += pages;
}

static void seal(struct remote *r, const uint8_t *id, uint64_t page, const struct tmem_packed *packed,
		 struct remote_set *to)
{
	(void)r, (void)id, (void)page;
	uint64_t number = copies_set++ % COPIES;

	CHECK(!d.tmem->unpack(packed, copied[number]));
	*to = (struct remote_set){.word = 1 + number};
}

static bool set(struct remote *r, const struct remote_set *s)
{
	(void)r, (void)s;
	if (meet_set) {
		meet = meet_set;
		meet_set = NULL;
		let_meet();
	}
	return true;
}

static void push(struct remote *r)
{
	(void)r;
}

static void forget(struct remote *r, uint64_t word)
{
	(void)r;
	CHECK(word && word <= COPIES);
}

static unsigned get(struct remote *r, const uint8_t *id, struct remote_want *wants, unsigned n,
		    int (*unpack)(const struct tmem_packed *, void *page))
{
	(void)r, (void)id, (void)unpack;
	for (unsigned i = 0; i < n; i++) {
		memcpy(wants[i].to, copied[wants[i].word - 1], PAGE_BYTES);
		wants[i].is_there = true;
	}
	asked += n;
	let_meet();
	return n;
}

static const struct remote_ops played_store = {
	.takes = takes, .pass = pass, .seal = seal, .set = set, .push = push, .forget = forget, .get = get,
};

/* Version 1 is on disk, and copied. */
static void copy_1(void)
{
	static const uint8_t id[REMOTE_DEVICE_BYTES];

	CHECK(!copies_use(&d, &played_store, NULL, id));
	put(1);
	CHECK(write_back() == 1 && copies_set == 1);
}

static void copy_meets_nobody(void)
{
	copy_1();
	CHECK(reads(1) && asked == 1 && count_of(&d.count.disk_reads) == 0);
	d.promoted_below = PROMOTE_ALL;
	CHECK(reads(1) && promoted() == 1 && reads(1) && asked == 2);
}

static void read_copy_and_meet(void (*what)(void))
{
	copy_1();
	d.promoted_below = PROMOTE_ALL;
	meet = what;
	CHECK(reads(1) && asked == 1);
	join();
}

static void copy_meets_a_put(void)
{
	read_copy_and_meet(put_2);
	CHECK(promoted() == 0 && reads(2));
}

static void copy_meets_a_trim(void)
{
	read_copy_and_meet(trim);
	CHECK(promoted() == 0 && reads(0));
}

static void copy_meets_a_put_and_its_writeback(void)
{
	read_copy_and_meet(put_2_and_write_it_back);
	CHECK(reads(2) && reads(2));
}

static void copy_meets_a_write_to_disk(void)
{
	read_copy_and_meet(write_2_to_disk);
	CHECK(reads(2) && reads(2));
}

/* What is moved next is not copied, as the store takes nothing. */
static void copy_goes_with_its_page(void)
{
	copy_1();
	takes_none = true;
	put_2_and_write_it_back();
	CHECK(device_state(&d, PAGE) == DISK && reads(2) && asked == 0);
	CHECK(copies_set == 1 && passed == 1);
}

static void copy_goes_with_a_write_to_disk(void)
{
	copy_1();
	write_to_disk(2);
	CHECK(reads(2) && asked == 0);
}

/* Its page is written to disk while it is noted: after that. */
static void copy_that_is_noted_meets_a_write_to_disk(void)
{
	meet_set = write_2_to_disk;
	copy_1();
	join();
	CHECK(reads(2) && asked == 0);
}

/* The page is in memory then, and what is noted of it stays until it goes to disk again. */
static void copy_that_is_noted_meets_a_put(void)
{
	meet_set = put_2;
	copy_1();
	join();
	CHECK(reads(2) && asked == 0);
	takes_none = true;
	CHECK(write_back() == 1 && reads(2) && asked == 0);
	CHECK(copies_set == 1 && passed == 1);
}

/* --- cases --- */

static const struct {
	const char *name;
	void (*play)(void);
} cases[] = {
	{"read_meets_nobody", read_meets_nobody},
	{"read_meets_a_put", read_meets_a_put},
	{"read_meets_a_trim", read_meets_a_trim},
	{"read_meets_a_put_and_a_trim", read_meets_a_put_and_a_trim},
	{"read_meets_a_read", read_meets_a_read},
	{"read_meets_a_put_and_its_writeback", read_meets_a_put_and_its_writeback},
	{"read_meets_a_sync", read_meets_a_sync},
	{"read_meets_a_write_to_disk", read_meets_a_write_to_disk},
	{"writeback_meets_nobody", writeback_meets_nobody},
	{"writeback_meets_a_put", writeback_meets_a_put},
	{"writeback_meets_a_trim", writeback_meets_a_trim},
	{"writeback_meets_a_slot_filled_again", writeback_meets_a_slot_filled_again},
	{"writeback_meets_a_read", writeback_meets_a_read},
	{"writeback_meets_a_write_to_disk", writeback_meets_a_write_to_disk},
	{"weighed_page_is_read", weighed_page_is_read},
	{"refaults", refaults},
	{"copy_meets_nobody", copy_meets_nobody},
	{"copy_meets_a_put", copy_meets_a_put},
	{"copy_meets_a_trim", copy_meets_a_trim},
	{"copy_meets_a_put_and_its_writeback", copy_meets_a_put_and_its_writeback},
	{"copy_meets_a_write_to_disk", copy_meets_a_write_to_disk},
	{"copy_goes_with_its_page", copy_goes_with_its_page},
	{"copy_goes_with_a_write_to_disk", copy_goes_with_a_write_to_disk},
	{"copy_that_is_noted_meets_a_write_to_disk", copy_that_is_noted_meets_a_write_to_disk},
	{"copy_that_is_noted_meets_a_put", copy_that_is_noted_meets_a_put},
};

static int opened(const char *folder)
{
	char path[4096];

	snprintf(path, sizeof path, "%s/disk", folder);
	return open(path, O_RDWR | O_CREAT | O_TRUNC, 0600);
}

int main(int argc, char **argv)
{
	if (argc != 4)
		return 2;
	begin(argv[1], opened(argv[1]), 0);
	way = (unsigned)atoi(argv[3]);
	for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
		if (!strcmp(cases[i].name, argv[2])) {
			cases[i].play();
			CHECK(is_in_order());
			return 0;
		}
	return 2;
}
