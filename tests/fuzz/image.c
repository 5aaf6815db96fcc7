/* SPDX-License-Identifier: BSD-3-Clause */
#define _GNU_SOURCE
#include "image.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>
#include <xxhash.h>

#define POOLS 4u
#define PAGES (IMAGE_BYTES / TMEM_PAGE)
#define UUID_AT 24u
#define SALT_AT 40u
#define CHECK_AT 88u
#define FIXED_SALT 0x5eed5eed5eed5eedull

struct bytes {
	_Alignas(TMEM_PAGE) uint8_t at[IMAGE_BYTES];
	bool present[PAGES];           /* pages of the file that have memory */
};

static struct bytes made, now;
static struct arena view;              /* of the bytes as they are now */

_Noreturn void fail(const char *what)
{
	fprintf(stderr, "wrong: %s\n", what);
	abort();
}

const char *arena_path(void)
{
	static char path[4096];
	const char *folder = getenv("FUZZ_DIR");

	if (!folder)
		fail("FUZZ_DIR names no directory in shared memory");
	snprintf(path, sizeof path, "%s/arena", folder);
	return path;
}

/* Linked in the place of fstatvfs(): the address space that an arena gets is small, so that it
 * is quick to make and can run out. */
int __wrap_fstatvfs(int fd, struct statvfs *to)
{
	(void)fd;
	*to = (struct statvfs){.f_frsize = SLAB_BYTES, .f_blocks = IMAGE_SLABS - 1};
	return 0;
}

void make_page(uint8_t *page, const struct tmem_handle *handle, uint32_t version)
{
	static const uint16_t noise[8] = {0, 32, 200, 700, 1500, 2500, 3600, TMEM_PAGE};
	uint32_t name[4] = {(uint32_t)handle->object, handle->index, handle->pool, version};
	uint64_t x = XXH3_64bits(name, sizeof name) | 1;

	memset(page, 0, TMEM_PAGE);
	if (noise[version % 8] == 0) {
		for (size_t i = 0; i < TMEM_PAGE; i += sizeof x)
			memcpy(page + i, &x, sizeof x);
		return;
	}
	memcpy(page, name, sizeof name);
	for (size_t i = sizeof name; i + sizeof x <= noise[version % 8]; i += sizeof x) {
		x ^= x << 13;
		x ^= x >> 7;
		x ^= x << 17;
		memcpy(page + i, &x, sizeof x);
	}
}

bool names_itself(const uint8_t *page, const struct tmem_handle *handle)
{
	uint8_t expected[TMEM_PAGE];
	uint32_t version;

	memcpy(&version, page + 12, sizeof version);
	make_page(expected, handle, version);
	for (uint32_t same = 0; same < 256 && memcmp(page, expected, TMEM_PAGE); same += 8)
		make_page(expected, handle, same);
	return memcmp(page, expected, TMEM_PAGE) == 0;
}

/* --- Making ----------------------------------------------------------------------------------- */

static struct tmem_handle handle_number(uint32_t n, uint32_t pool)
{
	return (struct tmem_handle){.object = n % 5, .index = n / 5, .pool = pool};
}

static void put(struct tmem_host *h, uint32_t pool, uint32_t n, uint32_t version)
{
	static const enum tmem_compress codecs[4] = {TMEM_LZ4, TMEM_ZSTD, TMEM_LZ4, TMEM_NONE};
	struct tmem_handle handle = handle_number(n, pool);
	uint8_t page[TMEM_PAGE];

	make_page(page, &handle, version);
	if (tmem_put(h, &handle, page, codecs[n % 4], false) != 1)
		fail("a page of the image was rejected");
}

static void make_pools(struct tmem_host *h)
{
	static const uint32_t flags[POOLS] = {TMEM_PERSISTENT, TMEM_PERSISTENT | TMEM_SHARED, 0,
					      TMEM_PERSISTENT | TMEM_EXCLUSIVE_GETS};
	const uint8_t uuid[16] = {1, 2, 3};

	for (uint32_t pool = 0; pool < POOLS; pool++) {
		if (tmem_new_pool(h, uuid, flags[pool]) != (int)pool)
			fail("no pool");
		for (uint32_t n = 0; n < (pool ? 12 : 40); n++)
			put(h, pool, n, n % 3 ? n : 0);
	}
}

/* Slabs of few classes with few pages each: the mover has something to do. */
static void make_sparse(struct tmem_host *h)
{
	for (uint32_t n = 100; n < 450; n++)
		put(h, 0, n, 4 + n / 100);
	for (uint32_t n = 100; n < 450; n++) {
		struct tmem_handle handle = handle_number(n, 0);
		if (n % 4 && tmem_flush(h, &handle) != 1)
			fail("a page of the image is gone");
	}
}

static void fill(struct tmem_host *h)
{
	tmem_set_limit(h, FUZZ_LIMIT);
	if (tmem_table_reserve(h, TMEM_PAGE))
		fail("no user's table");
	make_pools(h);
	for (uint32_t n = 0; n < 30; n++)
		put(h, 0, n, n + 1);
	make_sparse(h);
}

static int open_file(int flags)
{
	int fd = open(arena_path(), flags | O_CLOEXEC, 0600);

	if (fd < 0)
		fail("the arena file cannot be opened");
	return fd;
}

static void read_file(struct bytes *to)
{
	int fd = open_file(O_RDONLY);

	for (size_t page = 0; page < PAGES; page++) {
		off_t at = (off_t)(page * TMEM_PAGE);
		to->present[page] = lseek(fd, at, SEEK_DATA) == at;
		if (pread(fd, to->at + at, TMEM_PAGE, at) != TMEM_PAGE)
			fail("the image is short");
	}
	close(fd);
}

static void reopen(struct tmem_host **h)
{
	struct tmem_recovery found;
	char why[200];

	if (tmem_open(arena_path(), h, why, sizeof why) || tmem_recover(*h, NULL, NULL, &found))
		fail("the image cannot be opened");
}

/* The salt is the same each time, so that an input means the same each time. */
static void fix_salt(void)
{
	const uint64_t salt = FIXED_SALT;

	read_file(&now);
	memset(image_touch(UUID_AT, 16), 7, 16);
	memcpy(image_touch(SALT_AT, sizeof salt), &salt, sizeof salt);
	sign_superblock();
	image_write(0);
}

/* The first slot of slab 1, at or after `i`, that is live or is not. */
static uint32_t next_slot(uint32_t i, bool live)
{
	while ((arena_slot(&view, ref_of(1, i))->state != 0) != live)
		i++;
	return ref_of(1, i);
}

/* A kill between a new slot's birth and the old one's death leaves two. */
static void leave_torn_put(uint32_t i, uint64_t seq)
{
	unsigned class = (unsigned)arena_class(image(), 1);
	uint32_t from = next_slot(i, true), to = next_slot(slot_in_slab(from), false);
	const struct slot *s = arena_slot(&view, from);

	*arena_slot(&view, to) = *s;
	arena_slot(&view, to)->seq = seq;
	memcpy(arena_payload(&view, to, class), arena_payload(&view, from, class),
	       length_of(s->packing));
	sign_slot(to, true);
}

static void mark(bool *needed, uint64_t from, uint64_t to)
{
	for (uint64_t page = from / TMEM_PAGE; page <= (to - 1) / TMEM_PAGE; page++)
		needed[page] = true;
}

static void mark_slab(bool *needed, uint32_t slab, unsigned class)
{
	uint64_t start = (uint64_t)slab * SLAB_BYTES;

	mark(needed, start, start + payload_offset(class, 0));
	for (uint32_t i = 0; i < arena_classes()->slots[class]; i++)
		if (arena_slot(&view, ref_of(slab, i))->state)
			mark(needed, start + payload_offset(class, i),
			     start + payload_offset(class, i + 1));
}

/* Memory without live data is left out: each input starts with a copy of the rest. */
static void drop_dead_pages(void)
{
	bool needed[PAGES] = {false};

	mark(needed, 0, 3 * TMEM_PAGE);
	for (uint32_t slab = 1; slab < IMAGE_SLABS; slab++)
		if (arena_class(image(), slab) > 0)
			mark_slab(needed, slab, (unsigned)arena_class(image(), slab));
	for (uint64_t page = 0; page < PAGES; page++)
		if (!needed[page])
			image_punch(page * TMEM_PAGE, (page + 1) * TMEM_PAGE);
}

static void make(void)
{
	struct tmem_host *h;

	view = (struct arena){.base = now.at, .fd = -1, .slabs = IMAGE_SLABS};
	if (tmem_create(arena_path(), "the same boot", &h))
		fail("no arena can be made");
	tmem_close(h);
	fix_salt();
	reopen(&h);
	fill(h);
	tmem_close(h);
	read_file(&now);
	leave_torn_put(0, 0);
	leave_torn_put(1, 1u << 20);
	drop_dead_pages();
	made = now;
}

/* --- Changing --------------------------------------------------------------------------------- */

void image_reset(void)
{
	static bool ready;

	if (!ready)
		make();
	ready = true;
	for (size_t page = 0; page < PAGES; page++) {
		if (now.present[page] || made.present[page])
			memcpy(now.at + page * TMEM_PAGE, made.at + page * TMEM_PAGE, TMEM_PAGE);
		now.present[page] = made.present[page];
	}
}

const struct arena *image(void)
{
	memcpy(&view.salt, now.at + SALT_AT, sizeof view.salt);
	return &view;
}

uint8_t *image_touch(uint64_t at, size_t bytes)
{
	if (bytes == 0 || at >= IMAGE_BYTES || bytes > IMAGE_BYTES - at)
		return NULL;
	for (uint64_t page = at / TMEM_PAGE; page <= (at + bytes - 1) / TMEM_PAGE; page++)
		now.present[page] = true;
	return now.at + at;
}

void image_punch(uint64_t from, uint64_t to)
{
	for (uint64_t page = from / TMEM_PAGE; page < to / TMEM_PAGE && page < PAGES; page++) {
		memset(now.at + page * TMEM_PAGE, 0, TMEM_PAGE);
		now.present[page] = false;
	}
}

bool image_front_is_whole(void)
{
	return memcmp(now.at, made.at, 2 * TMEM_PAGE) == 0;
}

bool image_made(uint32_t ref)
{
	uint64_t at = (uint64_t)ref * HEADER_BYTES;

	return memcmp(now.at + at, made.at + at, HEADER_BYTES) == 0;
}

void image_write(uint64_t size)
{
	int fd = open_file(O_RDWR | O_CREAT | O_TRUNC);

	if (ftruncate(fd, IMAGE_BYTES))
		fail("no file of this size");
	for (size_t page = 0, run; page < PAGES; page += run) {
		off_t at = (off_t)(page * TMEM_PAGE);
		for (run = 0; page + run < PAGES && now.present[page + run]; run++)
			;
		if (run && pwrite(fd, now.at + at, run * TMEM_PAGE, at) !=
				   (ssize_t)(run * TMEM_PAGE))
			fail("no memory for the file");
		run += run == 0;
	}
	if (size && ftruncate(fd, (off_t)size))
		fail("no file of this size");
	close(fd);
}

/* --- Signing ---------------------------------------------------------------------------------- */

void sign_superblock(void)
{
	uint64_t check = XXH3_64bits(now.at + 8, CHECK_AT - 8);

	memcpy(image_touch(CHECK_AT, sizeof check), &check, sizeof check);
}

void sign_pool(uint32_t id, uint8_t uuid, uint32_t flags)
{
	uint64_t at = TMEM_PAGE + id * sizeof(struct pool_entry);
	struct pool_entry *e = (struct pool_entry *)image_touch(at, sizeof *e);

	e->uuid[0] = uuid;
	e->state = 0x706f6f6cull << 32 | flags;
	e->check = arena_pool_check(image(), e, flags);
}

void sign_class(uint32_t slab, unsigned class)
{
	const uint64_t what[2] = {slab, class};
	uint64_t word = (XXH3_64bits_withSeed(what, sizeof what, image()->salt) & ~0xffull) | class;

	memcpy(image_touch((uint64_t)slab * SLAB_BYTES, sizeof word), &word, sizeof word);
}

void sign_slot(uint32_t ref, bool payload_too)
{
	const struct arena *a = image();
	struct slot *s = (struct slot *)image_touch((uint64_t)ref * HEADER_BYTES, HEADER_BYTES);
	int class = arena_class(a, slab_of(ref));
	uint32_t sum = (uint32_t)s->state;

	s->seq &= INT64_MAX;           /* the arena's counter never comes around */
	if (payload_too && class > 0 && slot_in_slab(ref) < arena_classes()->slots[class] &&
	    length_of(s->packing) <= arena_classes()->bytes[class])
		sum = slot_sum(a, s, payload_digest(arena_payload(a, ref, (unsigned)class),
						    length_of(s->packing)));
	s->state = slot_live_word(a, s, sum);
}
