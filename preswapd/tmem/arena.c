/* SPDX-License-Identifier: BSD-3-Clause */
#define _GNU_SOURCE
#include "arena.h"

#if !__has_include(<xxhash.h>)
#error "preswapd needs the xxHash library and its headers: on Debian or Ubuntu, apt-get install liblz4-dev libzstd-dev libxxhash-dev"
#endif
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>
/* The sum of a few words is inlined: the call would cost as much again. */
#define XXH_INLINE_ALL
#include <xxhash.h>

#define MAGIC 0x31616e6572617370ull            /* "psarena1" */
#define LIVE_TAG 0xa5ull
#define POOL_OFFSET 4096u
#define USER_OFFSET 8192u
#define FRONT_BYTES 8192u                      /* superblock and pool table */

struct superblock {
	uint64_t magic;                        /* the last store */
	uint32_t format, slab_bytes, header_bytes, page_bytes;
	uint8_t uuid[16];
	uint64_t salt;
	char boot_id[40];
	uint64_t check;                        /* over all of the above but the magic */
};

struct classes the_classes;

/* 64 KiB / n rounded down to 16 bytes, at least 32 bytes apart: on real pages within 1.03 times
 * zram's memory.  The first class holds raw pages; the last, same-filled ones. */
static __attribute__((constructor)) void classes_make(void)
{
	struct classes *c = &the_classes;
	unsigned last = TMEM_PAGE + 512;

	for (unsigned n = 15; n < SLAB_BYTES / HEADER_BYTES; n++) {
		unsigned bytes = ((SLAB_BYTES - HEADER_BYTES) / n - HEADER_BYTES) & ~15u;
		if (bytes < 16)
			break;
		if (last - bytes < 32)
			continue;
		c->count++;
		c->slots[c->count] = (uint16_t)n;
		c->bytes[c->count] = (uint16_t)bytes;
		last = bytes;
	}
	for (unsigned i = 0; i <= TMEM_PAGE / 16; i++) {
		unsigned class = c->count;
		while (c->bytes[class] < i * 16)
			class--;
		c->for_length[i] = (uint8_t)class;
	}
}

static struct superblock *superblock_of(const struct arena *a)
{
	return (struct superblock *)a->base;
}

static uint64_t superblock_check(const struct superblock *s)
{
	const uint8_t *from = (const uint8_t *)&s->format;

	return XXH3_64bits(from, (size_t)((const uint8_t *)&s->check - from));
}

/* Address space for any limit that the file system could hold: the limit is a number that may be
 * raised at run time, the mapping stays. */
static int arena_map(struct arena *a)
{
	struct statvfs fs;
	struct stat st;

	if (fstatvfs(a->fd, &fs) || fstat(a->fd, &st))
		return -errno;
	uint64_t slabs = (uint64_t)fs.f_blocks * fs.f_frsize / SLAB_BYTES + 1;
	if (fs.f_blocks == 0)                  /* a tmpfs without a size has no end */
		slabs = ARENA_SLABS_MAX;
	if (slabs < (uint64_t)st.st_size / SLAB_BYTES)
		slabs = (uint64_t)st.st_size / SLAB_BYTES;
	if (slabs > ARENA_SLABS_MAX)
		slabs = ARENA_SLABS_MAX;
	if (slabs < 2)
		slabs = 2;
	if ((uint64_t)st.st_size < slabs * SLAB_BYTES &&
	    ftruncate(a->fd, (off_t)(slabs * SLAB_BYTES)))
		return -errno;
	a->slabs = (uint32_t)slabs;
	a->base = mmap(NULL, slabs * SLAB_BYTES, PROT_READ | PROT_WRITE,
		       MAP_SHARED | MAP_NORESERVE, a->fd, 0);
	if (a->base == MAP_FAILED) {
		a->base = NULL;
		return -errno;
	}
	madvise(a->base, slabs * SLAB_BYTES, MADV_DONTDUMP);
	return 0;
}

static int reserve_range(int fd, uint64_t from, uint64_t to)
{
	while (fallocate(fd, FALLOC_FL_KEEP_SIZE, (off_t)from, (off_t)(to - from)))
		if (errno != EINTR)
			return -errno;
	return 0;
}

/* Made under another name and renamed when it is complete: there is never half an arena. */
int arena_create(const char *path, const char *boot_id, struct arena *a)
{
	char fresh[4096];
	int err;

	*a = (struct arena){.fd = -1};
	if ((size_t)snprintf(fresh, sizeof fresh, "%s.new", path) >= sizeof fresh)
		return -ENAMETOOLONG;
	unlink(fresh);
	a->fd = open(fresh, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0600);
	if (a->fd < 0)
		return -errno;
	if ((err = reserve_range(a->fd, 0, FRONT_BYTES)) || (err = arena_map(a)))
		goto fail;
	struct superblock *s = superblock_of(a);
	s->format = ARENA_FORMAT;
	s->slab_bytes = SLAB_BYTES;
	s->header_bytes = HEADER_BYTES;
	s->page_bytes = TMEM_PAGE;
	snprintf(s->boot_id, sizeof s->boot_id, "%s", boot_id);
	if (getrandom(s->uuid, sizeof s->uuid, 0) != sizeof s->uuid ||
	    getrandom(&s->salt, sizeof s->salt, 0) != sizeof s->salt) {
		err = -EIO;
		goto fail;
	}
	s->check = superblock_check(s);
	store_release(&s->magic, MAGIC);
	if (rename(fresh, path)) {
		err = -errno;
		goto fail;
	}
	a->salt = s->salt;
	a->front_bytes = FRONT_BYTES;
	return 0;
fail:
	unlink(fresh);
	arena_close(a);
	return err;
}

/* The user's table is reserved from its beginning, so the first hole is its end. */
static void find_table_end(struct arena *a)
{
	size_t pages = 0;

	while (pages < TMEM_TABLE_BYTES / TMEM_PAGE) {
		off_t at = (off_t)(USER_OFFSET + pages * TMEM_PAGE);
		if (lseek(a->fd, at, SEEK_DATA) != at)
			break;
		pages++;
	}
	a->table_reserved = pages * TMEM_PAGE;
	a->front_bytes = FRONT_BYTES + a->table_reserved;
}

static int refuse(char *why, size_t size, const char *text)
{
	snprintf(why, size, "%s", text);
	return -EINVAL;
}

int arena_open(const char *path, struct arena *a, char *why, size_t why_size)
{
	struct superblock s;
	struct stat st;
	int err;

	*a = (struct arena){.fd = open(path, O_RDWR | O_CLOEXEC | O_NOFOLLOW)};
	snprintf(why, why_size, "it cannot be opened");
	if (a->fd < 0)
		return -errno;
	if (fstat(a->fd, &st) || pread(a->fd, &s, sizeof s, 0) != sizeof s) {
		err = refuse(why, why_size, "it is too short to be an arena");
	} else if (s.magic != MAGIC) {
		err = refuse(why, why_size, "it is not an arena, or its superblock is damaged");
	} else if (s.format != ARENA_FORMAT) {
		snprintf(why, why_size, "its format is version %u, this release reads version %u",
			 s.format, ARENA_FORMAT);
		err = -EINVAL;
	} else if (s.check != superblock_check(&s) || s.slab_bytes != SLAB_BYTES ||
		   s.header_bytes != HEADER_BYTES || s.page_bytes != TMEM_PAGE) {
		err = refuse(why, why_size, "its superblock is damaged");
	} else if (st.st_size % SLAB_BYTES || st.st_size < 2 * (off_t)SLAB_BYTES) {
		err = refuse(why, why_size, "it is truncated");
	} else if ((err = arena_map(a))) {
		snprintf(why, why_size, "it cannot be mapped: %s", strerror(-err));
	} else {
		a->salt = s.salt;
		find_table_end(a);
		return 0;
	}
	arena_close(a);
	return err;
}

void arena_close(struct arena *a)
{
	if (a->base)
		munmap(a->base, (uint64_t)a->slabs * SLAB_BYTES);
	if (a->fd >= 0)
		close(a->fd);
	*a = (struct arena){.fd = -1};
}

const char *arena_boot_id(const struct arena *a)
{
	return superblock_of(a)->boot_id;
}

const uint8_t *arena_uuid(const struct arena *a)
{
	return superblock_of(a)->uuid;
}

uint8_t *arena_user_table(const struct arena *a)
{
	return a->base + USER_OFFSET;
}

/* Zeroed at once: what was allocated and never written is a hole to SEEK_DATA. */
int arena_reserve_user_table(struct arena *a, size_t bytes)
{
	size_t want = (bytes + TMEM_PAGE - 1) / TMEM_PAGE * TMEM_PAGE;

	if (want > TMEM_TABLE_BYTES)
		return -ENOSPC;
	if (want <= a->table_reserved)
		return 0;
	int err = reserve_range(a->fd, USER_OFFSET + a->table_reserved, USER_OFFSET + want);
	if (err)
		return err;
	memset(a->base + USER_OFFSET + a->table_reserved, 0, want - a->table_reserved);
	a->table_reserved = want;
	a->front_bytes = FRONT_BYTES + want;
	return 0;
}

struct pool_entry *arena_pools(const struct arena *a)
{
	return (struct pool_entry *)(a->base + POOL_OFFSET);
}

uint64_t arena_pool_check(const struct arena *a, const struct pool_entry *p, uint32_t flags)
{
	uint64_t id = (uint64_t)(p - arena_pools(a));

	return XXH3_64bits_withSeed(p->uuid, sizeof p->uuid,
				    a->salt ^ ((uint64_t)flags << 32 | id));
}

int arena_reserve(const struct arena *a, uint32_t slab, uint32_t from, uint32_t to)
{
	uint64_t base = (uint64_t)slab * SLAB_BYTES;

	return reserve_range(a->fd, base + from, base + to);
}

void arena_touch(const struct arena *a, uint32_t slab)
{
	madvise(a->base + (uint64_t)slab * SLAB_BYTES, SLAB_BYTES, MADV_POPULATE_WRITE);
}

int arena_punch(const struct arena *a, uint64_t from, uint64_t to)
{
	if (from >= to)
		return 0;
	while (fallocate(a->fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, (off_t)from,
			 (off_t)(to - from)))
		if (errno != EINTR)
			return -errno;
	return 0;
}

uint32_t arena_next_slab(const struct arena *a, uint32_t slab)
{
	while (slab < a->slabs) {
		off_t start = (off_t)slab * SLAB_BYTES;
		off_t data = lseek(a->fd, start, SEEK_DATA);
		if (data < 0)
			break;
		if (data < start + (off_t)TMEM_PAGE)
			return slab;
		slab = (uint32_t)(data / SLAB_BYTES);
		if (data % SLAB_BYTES >= TMEM_PAGE)
			slab++;
	}
	return a->slabs;
}

static uint64_t *class_word(const struct arena *a, uint32_t slab)
{
	return (uint64_t *)(a->base + (uint64_t)slab * SLAB_BYTES);
}

/* A flipped bit must not turn one class into another, and payloads into headers. */
static uint64_t class_word_for(const struct arena *a, uint32_t slab, unsigned class)
{
	const uint64_t words[2] = {slab, class};

	return (XXH3_64bits_withSeed(words, sizeof words, a->salt) & ~0xffull) | class;
}

void arena_carve(const struct arena *a, uint32_t slab, unsigned class)
{
	uint64_t *word = class_word(a, slab);

	store_release(word, 0);
	memset((uint8_t *)word + HEADER_BYTES, 0,
	       (size_t)HEADER_BYTES * arena_classes()->slots[class]);
	store_release(word, class_word_for(a, slab, class));
}

void arena_uncarve(const struct arena *a, uint32_t slab)
{
	store_release(class_word(a, slab), 0);
}

int arena_class(const struct arena *a, uint32_t slab)
{
	uint64_t word = load_acquire(class_word(a, slab));
	unsigned class = word & 0xff;

	if (word == 0)
		return 0;
	if (class == 0 || class > arena_classes()->count || word != class_word_for(a, slab, class))
		return -1;
	return (int)class;
}

/* The hash of all that a slot's header says but the state word, and of one word more. */
static inline uint64_t header_hash(const struct slot *s, uint64_t more, uint64_t seed)
{
	uint64_t small = (uint64_t)s->index << 32 | (uint64_t)s->pool << 16 | s->packing;
	const uint64_t words[4] = {s->object, s->seq, small, more};

	return XXH3_64bits_withSeed(words, sizeof words, seed);
}

uint32_t slot_sum(const struct arena *a, const struct slot *s, uint64_t digest)
{
	return (uint32_t)header_hash(s, digest, a->salt);
}

uint64_t slot_live_word(const struct arena *a, const struct slot *s, uint32_t sum)
{
	uint64_t check = header_hash(s, sum, ~a->salt) >> 40;

	return LIVE_TAG << 56 | check << 32 | sum;
}

bool slot_header_fits(const struct arena *a, const struct slot *s)
{
	uint64_t word = load_acquire(&s->state);

	return word == slot_live_word(a, s, (uint32_t)word);
}
