/* One swap device: what each of its pages is, and the requests of its guest.
 *
 * A page is where its live slot in tmem says, and without one where its state byte P says; both
 * outlive the process.  The two bitarrays (preswap_map: in tmem; disk map: read from the disk
 * file) are made from them at start and serve whole-set work.  Object = type << 4 | page & 15,
 * index = page >> 4, as in preswap (SWIZ_BITS = 4): sixteen locks for each device.
 *
 * The rules R1 to R6 in the comments are those of docs/concurrency.md, where each row of stores
 * below stands in its table.  Functions return 0 or a negative errno; none needs the GIL.
 */
#ifndef PRESWAPD_DEVICE_H
#define PRESWAPD_DEVICE_H

#include "disk.h"
#include "flights.h"
#include "latency.h"
#include "marks.h"
#include "tmem.h"

enum page_state { HOLE = 0x00, DISK = 0x0f, TMEM = 0xf0, LOST = 0xff };

struct device_counters {
	uint64_t preswap_pages, disk_pages, lost_pages;                     /* gauges */
	uint64_t loads, succ_stores, failed_stores, invalidates, lost_reads, quarantined_reads;
	uint64_t disk_reads, disk_writes, disk_errors, punched_pages;       /* pages; events */
	uint64_t trims, written_back_pages;                                 /* pages */
	uint64_t read_requests, write_requests, trim_requests;
};

struct device {
	const struct tmem_ops *tmem;
	struct tmem_host *host;
	uint32_t pool, type;
	uint64_t pages;
	enum tmem_compress compress;   /* atomic */
	uint8_t *map;                  /* P of each page, in shared memory */
	uint8_t *in_tmem, *on_disk;    /* the bitarrays' own buffers, little-endian */
	uint8_t *outdated;             /* pages that went from disk to tmem: their blocks remain */
	uint8_t *stale;                /* holes whose disk blocks are still to be punched */
	uint64_t stale_pages;          /* atomic */
	struct disk disk;
	struct marks marks;
	struct flights flights;
	uint64_t max_pages;            /* puts beyond it are rejected; atomic */
	uint64_t *quarantined;         /* in the arena's table, not 0: see requests.c; atomic */
	int last_error;                /* of the disk, positive errno; atomic */
	struct device_counters count;  /* atomic */
	struct latency reads, writes;
};

enum request_flags {
	REQUEST_FUA = 1,
	REQUEST_NOWAIT = 2,            /* -EAGAIN rather than wait */
	REQUEST_FAST = 4,              /* a zero request that must not take disk transfers */
	REQUEST_NO_TMEM = 8,           /* no page may enter tmem (its sidecar cannot say so) */
	REQUEST_REJECTED = 16,         /* tmem has rejected the first page: not to be asked again */
};

/* It may be changed while requests run: each page is stored with one codec or the other. */
static inline enum tmem_compress device_codec(const struct device *d)
{
	return __atomic_load_n(&d->compress, __ATOMIC_RELAXED);
}

static inline void device_set_codec(struct device *d, enum tmem_compress how)
{
	__atomic_store_n(&d->compress, how, __ATOMIC_RELAXED);
}

/* --- device.c: the page's place, under its lock --- */

/* Takes the state bytes and, by asking tmem for its pages, the live slots (recovery, step 4). */
void device_attach(struct device *);
/* Compresses what tmem holds of these pages uncompressed: a dead process did not come to it. */
void device_recompress(struct device *, uint64_t first, uint64_t pages);

static inline struct tmem_handle device_handle(const struct device *d, uint64_t page)
{
	return (struct tmem_handle){.object = (uint64_t)d->type << 4 | (page & 15),
				    .index = (uint32_t)(page >> 4), .pool = d->pool};
}

/* Only under the page's lock, or its mark, or where a stale answer does no harm. */
static inline uint8_t device_state(const struct device *d, uint64_t page)
{
	return __atomic_load_n(&d->map[page], __ATOMIC_ACQUIRE);
}

/* P, then the slot's death.  Under the lock; the dead slot is to be released after it. */
uint32_t device_become(struct device *, uint64_t page, const struct tmem_handle *,
		       enum page_state);
/* A built page becomes the page.  Under the lock. */
int device_publish(struct device *, uint64_t page, const struct tmem_handle *,
		   const struct tmem_fresh *, uint32_t *old);
/* After the disk has a whole run of pages: P = DISK, on the slot that is the page's now. */
void device_now_on_disk(struct device *, uint64_t first, uint64_t pages);
/* Counts and notes it; the error for the guest. */
int device_disk_failed(struct device *, int err);
/* Its disk blocks are to be punched. */
void device_make_stale(struct device *, uint64_t page);
/* The disk was written and the page became something else meanwhile.  Under the lock. */
void device_wrote_in_vain(struct device *, uint64_t page);

/* Neighbouring pages share a byte but lie under different locks: plain or would lose bits.
 * Returns whether the bit was set before. */
static inline bool device_set_bit(uint8_t *bits, uint64_t page)
{
	uint8_t bit = (uint8_t)(1u << page % 8);

	return __atomic_fetch_or(&bits[page / 8], bit, __ATOMIC_RELAXED) & bit;
}

static inline bool device_clear_bit(uint8_t *bits, uint64_t page)
{
	uint8_t bit = (uint8_t)(1u << page % 8);

	return __atomic_fetch_and(&bits[page / 8], (uint8_t)~bit, __ATOMIC_RELAXED) & bit;
}

static inline void device_count(uint64_t *counter, uint64_t n)
{
	__atomic_fetch_add(counter, n, __ATOMIC_RELAXED);
}

/* --- requests.c --- */

/* Under REQUEST_NOWAIT also -EAGAIN, it would have to wait, or DEVICE_REJECTED, tmem has not taken
 * a page.  To be asked again without, for what lies behind the first `*done` bytes; in the second
 * case with REQUEST_REJECTED. */
#define DEVICE_REJECTED 1

int device_pread(struct device *, void *to, uint64_t count, uint64_t offset, unsigned flags,
		 uint64_t *done);
int device_pwrite(struct device *, const void *from, uint64_t count, uint64_t offset,
		  unsigned flags, uint64_t *done);
int device_trim(struct device *, uint64_t count, uint64_t offset, unsigned flags);
int device_zero(struct device *, uint64_t count, uint64_t offset, unsigned flags);
int device_flush(struct device *);

struct extent {
	uint64_t offset, length;
	bool hole;
};
/* From `offset` on, at most `most` extents; returns how many. */
size_t device_extents(const struct device *, uint64_t count, uint64_t offset, struct extent *,
		      size_t most);

/* --- writeback.c: back to disk, and disk space back --- */

#define EXTENT_PAGES DISK_RUN_PAGES

struct writeback {
	uint64_t moved, lost;
};
/* Moves at most `most` pages of tmem among [first, first + EXTENT_PAGES) to disk. */
int device_writeback(struct device *, uint64_t first, uint64_t most, struct writeback *);

struct aged {
	double seq;                    /* the mean of its pages in tmem */
	uint64_t pages, extent;
};
/* The extents with pages in tmem, the coldest first; `to` has room for all extents. */
size_t device_coldest(struct device *, struct aged *to);
/* Holes of the disk file where a trim left blocks behind; all: wherever no page is on disk. */
int device_punch(struct device *, uint64_t first, uint64_t pages, bool all);
/* What lay behind the end of a disk file that was cut off is lost, and the file as long as it
 * was: how many pages, -ENOENT where it is whole. */
int64_t device_mend(struct device *);
/* Forgets [first, first + pages) as a trim does. */
void device_forget(struct device *, uint64_t first, uint64_t pages);

#endif
