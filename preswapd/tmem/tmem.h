/* SPDX-License-Identifier: BSD-3-Clause */
/* The tmem host's interface: what the layers above may call, and nothing else.
 *
 * A host has pools, a pool has objects, an object has pages of 4096 bytes.  The six operations of
 * transcendent memory (new_pool, destroy_pool, put, get, flush_page, flush_object) follow the
 * Linux and Xen patches of 2009-2011.  A user who keeps state of its own beside each page (the
 * swap device does) composes put and flush from the smaller steps of `struct tmem_ops`, so that
 * its own stores fall inside the page's lock, in the order that the crash protocol wants:
 *
 *     build (compress, fill a slot; no lock)  ->  lock  ->  publish  ->  unlock  ->  release(old)
 *
 * Functions return 0 or a negative errno unless they say otherwise.  None of them needs the GIL.
 */
#ifndef PRESWAPD_TMEM_H
#define PRESWAPD_TMEM_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "page_size.h"

#define TMEM_PAGE PAGE_BYTES
#define TMEM_STAGE_MOST 16u
#define TMEM_CGROUP_FILES 4u
#define TMEM_TABLE_BYTES 32768u        /* room in the arena for a table of the user's own */

struct tmem_host;

struct tmem_handle {
	uint64_t object;
	uint32_t index;
	uint32_t pool;
};

enum tmem_compress { TMEM_LZ4, TMEM_ZSTD, TMEM_NONE };

/* A pool's; the first two have Xen's numbers. */
enum tmem_pool_flags { TMEM_PERSISTENT = 1, TMEM_SHARED = 2, TMEM_EXCLUSIVE_GETS = 256 };

enum tmem_flags {
	TMEM_REPLACE = 1,              /* a page with this handle is thought to be stored */
	TMEM_NOWAIT = 2,               /* -EAGAIN rather than a system call */
	TMEM_SPARE = 16,               /* only where there is room to spare: but for evicting ephemeral pages
					* nothing is done to make some, and a rejection is not counted */
};

/* A page in a slot that nobody can find yet. */
struct tmem_fresh {
	uint32_t ref;
	uint32_t generation;           /* of its pool: the next one may have got the number since */
	uint16_t packing;
	uint64_t digest;
};

/* Where a page is now.  ref 0: it is not stored.  It may change as soon as the lock is
 * dropped: who takes the lock again compares both, as a slot alone may have been freed and filled
 * again. */
struct tmem_found {
	uint64_t seq;
	uint32_t ref;
};

/* A stored page taken out of the arena, still compressed. */
struct tmem_copy {
	struct tmem_handle handle;
	uint64_t seq;
	uint32_t sum;
	uint16_t packing;
	uint8_t bytes[TMEM_PAGE];
};

/* A page as a slot holds it. */
struct tmem_packed {
	const void *bytes;
	uint16_t length;
	uint8_t codec;                 /* a number of the arena format: docs/arena-format.md */
};

#define TMEM_CODEC_RAW 2u              /* it is not compressed */
#define TMEM_CODEC_LZ4 3u

struct tmem_stats {
	uint64_t mem_limit, mem_used_total, mem_used_max, metadata_size;
	uint64_t stored_pages, same_filled_pages, huge_pages, compr_data_size, live_slot_bytes;
	uint64_t staged_pages;
	uint64_t ephemeral_pages, ephemeral_bytes, evicted_pages;
	uint64_t puts, good_puts, no_mem_puts, dup_puts_replaced, dup_puts_flushed;
	uint64_t gets, found_gets, flushes, flushes_found;
	uint64_t pool_limit_hit, reject_alloc_fail, checksum_errors, moved_pages;
	uint64_t recompressed_pages, recompress_saved;          /* pages; bytes */
};

/* Of one pool; bytes: of its pages as they are stored, with their headers.  evicted_by_itself: those that
 * went because the pool was as large as it may be. */
struct tmem_pool_stats {
	uint64_t pages, bytes, evicted, evicted_by_itself;
};

struct tmem_recovery {
	uint64_t stored_pages, losers, damaged_slots, damaged_slabs, dropped_pages;
};

/* Recovery asks the user about each page it finds: false drops it. */
typedef bool (*tmem_keep)(void *ctx, const struct tmem_handle *handle);
/* Called for each stored page of an object, by index, under its lock. */
typedef void (*tmem_visit)(void *ctx, uint32_t index, uint32_t ref);

struct tmem_ops {
	/* Copies the first of up to TMEM_STAGE_MOST pages of one pool into slots uncompressed, to
	 * stay so (TMEM_NONE) or to be compressed afterwards.  Returns how many it took; the others
	 * are for build().  0: staging is off, there is no room for it, or compressing the page now
	 * costs no more.  -EAGAIN: as in build(). */
	int (*stage)(struct tmem_host *, const struct tmem_handle *, const void *pages, unsigned n,
		     enum tmem_compress, unsigned flags, struct tmem_fresh *);
	/* Compresses `page` and fills a slot.  -ENOSPC, -ENOMEM: the put is rejected (and counted);
	 * -EAGAIN: under TMEM_NOWAIT, it would have to wait. */
	int (*build)(struct tmem_host *, const struct tmem_handle *, const void *page,
		     enum tmem_compress, unsigned flags, struct tmem_fresh *);
	/* The same of a page that is compressed already, and that unpack() takes.  Also -EINVAL, not counted: no slot holds
	 * such a page as it is. */
	int (*build_packed)(struct tmem_host *, const struct tmem_handle *, const struct tmem_packed *,
			    unsigned flags, struct tmem_fresh *);
	/* Gives up a page that was built or staged, and will not be published. */
	void (*abandon)(struct tmem_host *, const struct tmem_fresh *);

	/* The lock of a page's object.  One at a time; no system call and no waiting inside. */
	void (*lock)(struct tmem_host *, const struct tmem_handle *);
	bool (*trylock)(struct tmem_host *, const struct tmem_handle *);
	void (*unlock)(struct tmem_host *, const struct tmem_handle *);

	/* Under the lock. */
	struct tmem_found (*find)(struct tmem_host *, const struct tmem_handle *);
	/* A built page becomes the current one.  *old is the slot that it replaced, already dead,
	 * or 0: to be given to release() after the unlock.  -ENOSPC, -ENOMEM: rejected, still to be abandoned;
	 * the page that was there stays, and *old is 0.
	 * For persistent pools: only tmem_put() tells the queue of ephemeral pages. */
	int (*publish)(struct tmem_host *, const struct tmem_handle *, const struct tmem_fresh *,
		       uint32_t *old);
	/* The page is not stored any more.  Returns the dead slot, for release(), or 0. */
	uint32_t (*drop)(struct tmem_host *, const struct tmem_handle *);
	void (*copy)(struct tmem_host *, const struct tmem_found *, struct tmem_copy *);
	uint64_t (*slot_seq)(const struct tmem_host *, uint32_t ref);
	/* Memory that it takes, with its header; also of a page that is built. */
	uint32_t (*slot_bytes)(const struct tmem_host *, uint32_t ref);

	/* Without the lock. */
	void (*release)(struct tmem_host *, uint32_t ref);
	void (*release_all)(struct tmem_host *, const uint32_t *refs, unsigned n);
	/* Checks and decompresses.  -EIO (counted): the page is damaged. */
	int (*open)(struct tmem_host *, const struct tmem_copy *, void *page);
	/* Checks it too, and leaves it compressed: what is found points into the copy. */
	int (*open_packed)(struct tmem_host *, const struct tmem_copy *, struct tmem_packed *);
	/* Compresses a page for whoever has the same unpack(): into `out`, or where `page` lies.  -ENOMEM. */
	int (*pack)(enum tmem_compress, const void *page, uint8_t out[TMEM_PAGE], struct tmem_packed *);
	/* Decompresses what may have come from anywhere.  -EIO: it is no page; -ENOMEM. */
	int (*unpack)(const struct tmem_packed *, void *page);
	void (*count_get)(struct tmem_host *, bool found);
	void (*count_flush)(struct tmem_host *, bool found);
	/* Allocates the upper levels of an object's index for pages 0..last. */
	int (*reserve_index)(struct tmem_host *, const struct tmem_handle *, uint32_t last);
	void (*forget_index)(struct tmem_host *, const struct tmem_handle *);
	/* Later pages have this sequence number or a higher one. */
	uint64_t (*next_seq)(const struct tmem_host *);
	/* Visits an object's pages in order of index, each under its lock; the visitor must be brief. */
	void (*visit)(struct tmem_host *, const struct tmem_handle *, tmem_visit, void *ctx);
	/* Compresses the page if it is stored raw and gets smaller by that. */
	void (*settle)(struct tmem_host *, const struct tmem_handle *, enum tmem_compress);
	/* The same page in a shorter slot, where this codec is denser than the one that it has.  1: done;
	 * 0: it stays as it is; -ENOSPC: no room for the copy now; -ENOMEM. */
	int (*recompress)(struct tmem_host *, const struct tmem_handle *, enum tmem_compress);

	/* As tmem_put() (what is rejected is flushed), tmem_get() and tmem_flush() below. */
	int (*put)(struct tmem_host *, const struct tmem_handle *, const void *page,
		   enum tmem_compress);
	int (*get)(struct tmem_host *, const struct tmem_handle *, void *page);
	int (*flush)(struct tmem_host *, const struct tmem_handle *);
	int64_t (*flush_object)(struct tmem_host *, uint32_t pool, uint64_t object);
};

extern const struct tmem_ops tmem_ops;

int tmem_create(const char *path, const char *boot_id, struct tmem_host **);
int tmem_open(const char *path, struct tmem_host **, char *why, size_t why_size);
int tmem_recover(struct tmem_host *, tmem_keep, void *ctx, struct tmem_recovery *);
void tmem_close(struct tmem_host *);

const char *tmem_boot_id(const struct tmem_host *);
const uint8_t *tmem_uuid(const struct tmem_host *);                /* 16 bytes */
/* The user's table: TMEM_TABLE_BYTES, zeros at first.  A part must be reserved before it is
 * touched: on a full tmpfs the first touch of a hole is a SIGBUS. */
uint8_t *tmem_table(struct tmem_host *);
int tmem_table_reserve(struct tmem_host *, size_t bytes);
/* How much of the table may be looked at. */
size_t tmem_table_reserved(const struct tmem_host *);

void tmem_set_limit(struct tmem_host *, uint64_t bytes);
/* A lower limit for a while, of which no statistics speak; UINT64_MAX: none. */
void tmem_set_cap(struct tmem_host *, uint64_t bytes);
/* So many bytes of the limit should be free for what is put next.  Ephemeral puts leave them free.  The
 * host does nothing else for that but to pack its pages closer: it is for its user to take pages out. */
void tmem_set_spare(struct tmem_host *, uint64_t bytes);
/* How many bytes are lacking for that; negative, how many more are free. */
int64_t tmem_lacking(struct tmem_host *);
/* The same, and waits until some are, for so long at most. */
int64_t tmem_wait_lacking(struct tmem_host *, unsigned milliseconds);
/* Ends that wait now, or the next one where nobody waits: something else is to be looked at. */
void tmem_wake(struct tmem_host *);
/* What the arena's address space has room for, whatever its file system holds by now. */
uint64_t tmem_largest_limit(const struct tmem_host *);
/* Bytes of MemAvailable and of the arena's file system that stay free, and open descriptors of memory
 * cgroups: hard limit, high limit, usage and statistics of each, -1 for a file that is not there. */
void tmem_set_headroom(struct tmem_host *, uint64_t host_reserve, uint64_t shm_reserve,
		       const int (*cgroups)[TMEM_CGROUP_FILES], size_t n);
/* Memory that the layers above may come to take unasked, and that the arena does not grow into. */
void tmem_set_aside(struct tmem_host *, uint64_t bytes);
/* Memory that may still be taken before somebody is killed for it, and who limits it: a cgroup by its
 * number, or -1, the host. */
uint64_t tmem_room(struct tmem_host *, int *limiter);
/* By how much a cgroup is too small for what is used and what is set aside; 0: none is. */
uint64_t tmem_owed(struct tmem_host *);

/* Returns its id, >= 0.  A shared pool with this uuid is joined; -EEXIST: its flags differ.
 * -EINVAL: unknown flags, or a shared pool without a uuid; -ENOSPC: the table is full. */
int tmem_new_pool(struct tmem_host *, const uint8_t uuid[16], uint32_t flags);
/* Returns how many pages it dropped; a shared pool goes when its last user has destroyed it. */
int64_t tmem_destroy_pool(struct tmem_host *, uint32_t pool);
int tmem_freeze(struct tmem_host *, uint32_t pool, bool frozen);
int tmem_set_max_pages(struct tmem_host *, uint32_t pool, uint64_t pages);
/* Of an ephemeral pool (-EINVAL: it is none), as in tmem_pool_stats: a put beyond it evicts the pool's own
 * pages. */
int tmem_set_max_bytes(struct tmem_host *, uint32_t pool, uint64_t bytes);
bool tmem_pool_exists(const struct tmem_host *, uint32_t pool);
int tmem_get_pool_stats(const struct tmem_host *, uint32_t pool, struct tmem_pool_stats *);

/* The contract in single calls: 1 done, 0 not stored or not found, or a negative errno. */
int tmem_put(struct tmem_host *, const struct tmem_handle *, const void *page, enum tmem_compress,
	     bool keep_old);
int tmem_get(struct tmem_host *, const struct tmem_handle *, void *page);
int tmem_flush(struct tmem_host *, const struct tmem_handle *);
int64_t tmem_flush_object(struct tmem_host *, uint32_t pool, uint64_t object);  /* pages dropped */
/* As in struct tmem_ops: whether it was done. */
int tmem_recompress(struct tmem_host *, const struct tmem_handle *, enum tmem_compress);

/* Gives all empty slabs back to the system. */
void tmem_give_back(struct tmem_host *);
/* Moves pages out of the emptiest slabs, where memory is lacking or most of it is holes. */
void tmem_compact(struct tmem_host *);
/* Evicts ephemeral pages until the spare room is free, or none are left. */
void tmem_make_spare(struct tmem_host *);
/* Evicts all ephemeral pages: how many. */
uint64_t tmem_evict_all(struct tmem_host *);
/* As tmem_compact(), and gives empty slabs back. */
void tmem_maintain(struct tmem_host *, bool all);
/* Moves pages closer together than tmem_maintain() does, those of a few slabs, for some milliseconds: for
 * pages that will stay for long.  Whether there may be more to do. */
bool tmem_pack(struct tmem_host *);
/* Staging: a put that has room stores its page uncompressed, and settle() compresses it afterwards.
 * Where memory is short a put compresses the staged pages first, and then its own at once.  Who turns
 * it on must call settle() in a loop, in a thread for that alone: a call waits for staged pages, for
 * `milliseconds` at most, and returns when it has been through all of them. */
void tmem_set_staging(struct tmem_host *, bool on);
void tmem_settle(struct tmem_host *, unsigned milliseconds);
void tmem_get_stats(struct tmem_host *, struct tmem_stats *);

#endif
