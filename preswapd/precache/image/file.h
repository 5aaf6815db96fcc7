/* SPDX-License-Identifier: BSD-3-Clause */
/* The file, or block device, that an image is.  Whole pages, the last one padded with zeros.
 *
 * Functions return 0 or a negative errno unless they say otherwise. */
#ifndef PRESWAPD_FILE_H
#define PRESWAPD_FILE_H

#include <stdbool.h>
#include <stdint.h>

#include "buffer.h"
#include "export.h"
#include "syncs.h"

struct file {
	int fd;
	uint64_t size;                 /* bytes, as the clients were told */
	bool is_direct;                /* opened past the page cache */
	bool is_file;                  /* not a block device, whose times say nothing */
	bool is_writable;              /* nobody else writes; its times say nothing either */
	bool no_punch, no_zero_range;  /* the file system does not know these; atomic */
	struct syncs syncs;
};

/* What a file is and when it was changed last: whoever changes a byte of it changes this first. */
struct identity {
	uint64_t device, inode, size;
	int64_t mtime_s, mtime_ns, ctime_s, ctime_ns;
};

void file_init(struct file *);
void file_destroy(struct file *);
int file_attach(struct file *, int fd, uint64_t size, bool is_direct, bool is_writable);
int file_look(const struct file *, struct identity *);
/* Into a buffer that is aligned.  -EIO: the file ends before that, as it was cut off. */
int file_read(const struct file *, uint64_t first, uint32_t pages, uint8_t *buffer);
/* Out of a buffer that is aligned.  -EIO: somebody has cut the file off, and it would get longer again, with
 * zeros where other pages were. */
int file_write(const struct file *, uint64_t first, uint32_t pages, const uint8_t *buffer);
/* The pages read as zeros afterwards; they may lose their blocks.  -EOPNOTSUPP, if it must be fast: zeros
 * would have to be written. */
int file_clear(struct file *, uint64_t first, uint64_t pages, bool may_trim, bool fast);
/* They lose their blocks, where there is a way: a file's pages read as zeros afterwards. */
int file_trim(struct file *, uint64_t first, uint64_t pages);
/* All that was written before is on disk. */
int file_sync(struct file *);
/* They need not stay in the page cache, where they are. */
void file_forget(const struct file *, uint64_t first, uint64_t pages);
/* From `offset` on, `most` at most: how many; holes are whole pages. */
int file_extents(const struct file *, uint64_t count, uint64_t offset, struct nbd_extent *,
		 unsigned most);

static inline uint64_t min_of(uint64_t a, uint64_t b)
{
	return a < b ? a : b;
}

static inline uint64_t file_pages(const struct file *f)
{
	return (f->size + PAGE_BYTES - 1) / PAGE_BYTES;
}

static inline bool identity_is(const struct identity *a, const struct identity *b)
{
	return a->device == b->device && a->inode == b->inode && a->size == b->size &&
	       a->mtime_s == b->mtime_s && a->mtime_ns == b->mtime_ns &&
	       a->ctime_s == b->ctime_s && a->ctime_ns == b->ctime_ns;
}

#endif
