/* SPDX-License-Identifier: BSD-3-Clause */
/* One swap device: what each of its pages is, and what its parts share.
 *
 * A page is where its live slot in tmem says, and without one where its state byte P says; both
 * outlive the process.  The bitarray preswap_map (which pages are in tmem) is made from them at
 * start and serves whole-set work.
 *
 * The rules R1 to R6 in the comments are those of docs/concurrency.md, where each row of stores
 * stands in its table.  Functions return 0 or a negative errno; none needs the GIL.
 */
#ifndef PRESWAPD_DEVICE_H
#define PRESWAPD_DEVICE_H

#include "disk.h"
#include "epochs.h"
#include "export.h"
#include "flights.h"
#include "latency.h"
#include "marks.h"
#include "page_size.h"
#include "remote.h"
#include "sampler.h"
#include "stores.h"
#include "swizzle.h"
#include "tmem.h"
#include "zone.h"

/* UNKNOWN: no guest has written or trimmed it as far as this server knows.  PENDING: another host has
 * it, and it is to be fetched from there.  Any two differ in four bits at least. */
enum page_state {
	HOLE = 0x00, DISK = 0x0f, PENDING = 0x33, UNKNOWN = 0x3c, TMEM = 0xf0, LOST = 0xff
};

/* Where the device's guest is as far as this server knows, see docs/moving.md.  COMING: it has changed
 * nothing here yet, and may be on the other host still.  GONE: another host has taken the device. */
enum device_guest { GUEST_HERE, GUEST_COMING, GUEST_GONE };

/* Pages that are moved to disk together, under one mark and in at most one transfer. */
#define EXTENT_PAGES DISK_RUN_PAGES

struct device_counters {
	uint64_t preswap_pages, disk_pages, lost_pages, unknown_pages;      /* gauges */
	uint64_t pending_pages;                                             /* a gauge */
	uint64_t loads, succ_stores, failed_stores, invalidates, lost_reads, unknown_reads;
	uint64_t disk_reads, disk_writes, disk_errors, punched_pages;       /* pages; events */
	uint64_t trims, written_back_pages, written_back_room, written_back_idle;     /* pages */
	uint64_t refaults, promoted_pages, fetched_pages, remote_reads;     /* pages */
	uint64_t fetch_errors;
	uint64_t read_requests, write_requests, trim_requests;
};

/* What a store beside this host has of a device, see remote.h. */
struct device_remote {
	uint64_t *words;               /* of each page; NULL: it never had any; atomic */
	bool is_on;                    /* atomic; what follows stays as it is from its first time on */
	const struct remote_ops *ops;
	struct remote *remote;
	uint8_t id[REMOTE_DEVICE_BYTES];
};

struct device {
	const struct tmem_ops *tmem;
	struct tmem_host *host;
	uint32_t pool, type;
	uint64_t pages;
	enum tmem_compress compress;   /* atomic */
	uint8_t *map;                  /* P of each page, in shared memory */
	uint8_t *in_tmem;              /* preswap_map's own buffer, little-endian */
	uint8_t *shadowed;             /* pages that went from disk to tmem: their blocks remain */
	uint8_t *to_punch;             /* holes whose disk blocks are still to be punched */
	uint64_t to_punch_pages;       /* atomic */
	struct epochs *epochs;         /* the instance's */
	uint16_t *touched;             /* the epoch in which each page was put, got or read last */
	struct sampler *sampler;       /* the instance's */
	struct sampled *sampled;       /* reads that it has looked at */
	uint8_t *weights;              /* of each page in tmem, when they were weighed last; else 0 */
	uint16_t weighed;              /* the epoch that began then */
	uint64_t promoted_below;       /* weight of a page that a read brings back; atomic */
	uint8_t *left[2];              /* pages that were written back lately, and before that */
	uint32_t left_now;             /* which of them is the later; atomic */
	struct device_remote remote;
	struct disk disk;
	struct marks marks;
	struct flights flights;
	uint64_t max_pages;            /* puts beyond it are rejected; atomic */
	struct zone zone;
	bool is_marked;                /* the saved map does not hold any more; atomic */
	int (*mark)(void *owner);      /* makes it known on disk; 0 or a negative errno */
	uint8_t guest;                 /* enum device_guest; atomic */
	uint64_t life;                 /* who pulls must name it; 0: nobody may; atomic */
	uint64_t taker;                /* of GUEST_GONE: the arrival that may pull; atomic */
	int (*take)(void *owner);      /* GUEST_COMING becomes GUEST_HERE; as mark() */
	/* Reads pages from the other host; as mark(). */
	int (*fetch)(void *owner, uint64_t first, uint32_t pages, uint8_t *to);
	void *owner;
	int last_error;                /* of the disk, positive errno; atomic */
	struct device_counters count;  /* atomic */
	struct latency reads, writes;
};

static inline struct tmem_handle device_handle(const struct device *d, uint64_t page)
{
	return (struct tmem_handle){.object = swizzle_object(d->type, page),
				    .index = swizzle_index(page), .pool = d->pool};
}

/* P.  Only under the page's lock, or its mark, or where an answer of a moment ago does no harm. */
static inline uint8_t device_state(const struct device *d, uint64_t page)
{
	return load_acquire_byte(&d->map[page]);
}

/* It may be changed while requests run: each page is stored with one codec or the other. */
static inline enum tmem_compress device_compress(const struct device *d)
{
	return __atomic_load_n(&d->compress, __ATOMIC_RELAXED);
}

static inline void device_set_compress(struct device *d, enum tmem_compress compress)
{
	__atomic_store_n(&d->compress, compress, __ATOMIC_RELAXED);
}

static inline void device_set_max_pages(struct device *d, uint64_t pages)
{
	__atomic_store_n(&d->max_pages, pages, __ATOMIC_RELAXED);
}

static inline void device_set_promoted_below(struct device *d, uint64_t weight)
{
	__atomic_store_n(&d->promoted_below, weight, __ATOMIC_RELAXED);
}

static inline bool device_is_marked(const struct device *d)
{
	return __atomic_load_n(&d->is_marked, __ATOMIC_ACQUIRE);
}

static inline void device_set_marked(struct device *d, bool marked)
{
	__atomic_store_n(&d->is_marked, marked, __ATOMIC_RELEASE);
}

static inline enum device_guest device_guest(const struct device *d)
{
	return (enum device_guest)__atomic_load_n(&d->guest, __ATOMIC_ACQUIRE);
}

/* GUEST_GONE and its end only while the flights are parked. */
static inline void device_set_guest(struct device *d, enum device_guest guest, uint64_t taker)
{
	__atomic_store_n(&d->taker, taker, __ATOMIC_RELEASE);
	__atomic_store_n(&d->guest, (uint8_t)guest, __ATOMIC_RELEASE);
}

static inline void device_set_life(struct device *d, uint64_t life)
{
	__atomic_store_n(&d->life, life, __ATOMIC_RELEASE);
}

/* A page may change without a look at anything else first. */
static inline bool device_is_open_to_changes(const struct device *d)
{
	return device_is_marked(d) && device_guest(d) == GUEST_HERE;
}

static inline bool device_over_quota(const struct device *d)
{
	return count_of(&d->count.preswap_pages) >= count_of(&d->max_pages);
}

/* Of a page that is chosen. */
void device_sample(struct device *, uint64_t page, bool is_read);

/* The page is put, or got, or read from disk. */
static inline void device_touch(struct device *d, uint64_t page, bool is_read)
{
	epochs_touch(d->epochs, &d->touched[page], is_read);
	if (sampler_chooses(d->sampler, sampler_key(d->type, page)))
		device_sample(d, page, is_read);
}

/* Rule K2: before P or the disk file of a clean device changes, in flight and without a lock.  An
 * error: nothing may change. */
int device_mark(struct device *);
/* The same before a guest's change, which takes the device from the host that it comes from. */
int device_change(struct device *);

/* --- device.c: the device as a whole --- */

/* Its memory, which device_release() gives back: maps the state bytes of d->pages pages.  -ENOMEM. */
int device_map(struct device *, int map_fd);
/* Gives back whatever it holds of that, and its disk file. */
void device_release(struct device *);
/* Bytes of the map, the bitmaps and what is kept of each page's age. */
size_t device_metadata_bytes(const struct device *);
/* Takes the state bytes and, by asking tmem for its pages, the live slots (recovery, step 4). */
void device_attach(struct device *);
/* The upper levels of the index of its objects.  -ENOMEM: none is reserved. */
int device_reserve_index(struct device *);
/* Drops all pages, and the index's upper levels.  -EBUSY: requests may still begin. */
int device_empty(struct device *);
/* Drops pages from tmem and disk, none of the zone: they read as zeros afterwards (HOLE), or not at
 * all (UNKNOWN). */
void device_drop(struct device *, uint64_t first, uint64_t pages, enum page_state);
/* PENDING pages of a range become another state, those of the zone DISK. */
void device_settle_pending(struct device *, uint64_t first, uint64_t pages, enum page_state);
/* Whatever the pages were: they are PENDING, or UNKNOWN and the zone on disk.  While it is parked. */
void device_renew(struct device *, enum page_state);
/* UNKNOWN pages of a range become zeros.  Returns how many. */
uint64_t device_make_known(struct device *, uint64_t first, uint64_t pages);
/* Compresses those of the pages that tmem still holds uncompressed: the process before this one
 * ended before it got to them. */
void device_settle(struct device *, uint64_t first, uint64_t pages);
/* Counts and notes what the disk file failed with; returns the error for the guest. */
int device_disk_error(struct device *, int err);

#endif
