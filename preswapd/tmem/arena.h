/* SPDX-License-Identifier: BSD-3-Clause */
/* The arena: one sparse file in shared memory that outlives the process, and its format.
 *
 *   slab 0      superblock | pool table | the user's table
 *   slab 1..    class word | table of slot headers | payloads          (64 KiB each)
 *
 * A slab's class fixes how many slots it has and how long their payloads may be.  Headers stand
 * together at the slab's front, so that recovery reads a few per cent of the memory.  The words
 * that the crash protocol names (state, class) are release stores; what they announce was stored
 * before them.  docs/arena-format.md has the byte offsets, and a golden test checks them.
 */
#ifndef PRESWAPD_ARENA_H
#define PRESWAPD_ARENA_H

#include "stores.h"
#include "tmem.h"

#define ARENA_FORMAT 1u
#define SLAB_BYTES 65536u
#define SLAB_STEP 16384u               /* a slab is reserved in steps, see slabs.c */
#define HEADER_BYTES 32u
#define ARENA_SLABS_MAX (1u << 21)     /* a ref counts headers: 32 bits of 32 bytes, 128 GiB */
#define CLASSES_MAX 128u
#define CLASS_RAW 1u                   /* the first: a whole page */
#define POOLS_MAX 64u

/* A slot's header.  `packing` is the payload's length (13 bits) and codec (3 bits). */
struct slot {
	uint64_t state;                /* 0, or tag 8 | header's check 24 | checksum 32 */
	uint64_t object;
	uint64_t seq;
	uint32_t index;
	uint16_t pool;
	uint16_t packing;
};
_Static_assert(sizeof(struct slot) == HEADER_BYTES, "the header is part of the format");

struct pool_entry {
	uint64_t state;                /* 0, or tag 32 | flags 32: the last store at birth */
	uint8_t uuid[16];
	uint64_t check;
};

struct arena {
	uint8_t *base;
	int fd;
	uint32_t slabs;                /* address space, not memory */
	uint64_t salt;                 /* no guest can forge a header without it */
	size_t table_reserved;
	uint64_t front_bytes;          /* allocated in slab 0 */
};

/* What each class of slab holds; class 0 is "not carved". */
struct classes {
	unsigned count;                /* classes are 1..count, from long payloads to short ones */
	uint16_t slots[CLASSES_MAX];
	uint16_t bytes[CLASSES_MAX];   /* payload */
	uint8_t for_length[TMEM_PAGE / 16 + 1];
};

/* Computed before main(), as the hot path asks for it many times a page. */
static inline const struct classes *arena_classes(void)
{
	extern struct classes the_classes;

	return &the_classes;
}

/* The class of the shortest slots that hold so much. */
static inline unsigned class_for(unsigned length)
{
	return arena_classes()->for_length[(length + 15) / 16];
}

/* What is longer than the longest class but raw pages is kept raw. */
static inline unsigned arena_longest_packed(void)
{
	return arena_classes()->bytes[CLASS_RAW + 1];
}

int arena_create(const char *path, const char *boot_id, struct arena *);
int arena_open(const char *path, struct arena *, char *why, size_t why_size);
void arena_close(struct arena *);
const char *arena_boot_id(const struct arena *);
const uint8_t *arena_uuid(const struct arena *);
uint8_t *arena_user_table(const struct arena *);
int arena_reserve_user_table(struct arena *, size_t bytes);
struct pool_entry *arena_pools(const struct arena *);
uint64_t arena_pool_check(const struct arena *, const struct pool_entry *, uint32_t flags);

/* Memory of a slab: reserved before its first touch, given back as a hole. */
int arena_reserve(const struct arena *, uint32_t slab, uint32_t from, uint32_t to);
/* Reserved memory is mapped in one go: whoever fills it slot by slot meets no page faults. */
void arena_touch(const struct arena *, uint32_t slab);
int arena_punch(const struct arena *, uint64_t from, uint64_t to);
/* The first slab at or after `slab` whose front was ever written, or `slabs`. */
uint32_t arena_next_slab(const struct arena *, uint32_t slab);

/* Rule R6: the header table of the new class is zero before the class word says so. */
void arena_carve(const struct arena *, uint32_t slab, unsigned class);
void arena_uncarve(const struct arena *, uint32_t slab);
/* The class, 0, or -1 when the word is damaged. */
int arena_class(const struct arena *, uint32_t slab);

static inline uint32_t slab_of(uint32_t ref)
{
	return ref / (SLAB_BYTES / HEADER_BYTES);
}

/* A header follows the class word's 32 bytes, hence the one. */
static inline uint32_t ref_of(uint32_t slab, uint32_t slot)
{
	return slab * (SLAB_BYTES / HEADER_BYTES) + 1 + slot;
}

static inline uint32_t slot_in_slab(uint32_t ref)
{
	return ref % (SLAB_BYTES / HEADER_BYTES) - 1;
}

static inline struct slot *arena_slot(const struct arena *a, uint32_t ref)
{
	return (struct slot *)(a->base + (uint64_t)ref * HEADER_BYTES);
}

/* Where a slot's payload begins, counted from its slab. */
static inline uint32_t payload_offset(unsigned class, uint32_t slot)
{
	const struct classes *c = arena_classes();

	return HEADER_BYTES * (1u + c->slots[class]) + slot * c->bytes[class];
}

static inline uint8_t *arena_payload(const struct arena *a, uint32_t ref, unsigned class)
{
	return a->base + (uint64_t)slab_of(ref) * SLAB_BYTES +
	       payload_offset(class, slot_in_slab(ref));
}

static inline uint16_t packing_of(unsigned length, unsigned codec)
{
	return (uint16_t)(length << 3 | codec);
}

static inline unsigned length_of(uint16_t packing)
{
	return packing >> 3;
}

static inline uint8_t codec_of(uint16_t packing)
{
	return packing & 7;
}

/* The checksum covers handle, seq, length, codec and (by its digest, see digest.c) the payload. */
uint64_t payload_digest(const void *bytes, size_t length);
uint32_t slot_sum(const struct arena *, const struct slot *, uint64_t digest);
/* The state word of a filled slot. */
uint64_t slot_live_word(const struct arena *, const struct slot *, uint32_t sum);
bool slot_header_fits(const struct arena *, const struct slot *);

#endif
