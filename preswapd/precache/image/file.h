/* SPDX-License-Identifier: BSD-3-Clause */
/* The file, or block device, that an image is.  Whole pages, the last one padded with zeros. */
#ifndef PRESWAPD_FILE_H
#define PRESWAPD_FILE_H

#include <stdbool.h>
#include <stdint.h>

#include "buffer.h"
#include "export.h"

struct file {
	int fd;
	uint64_t size;                 /* bytes, as the clients were told */
	bool is_direct;                /* opened past the page cache */
	bool is_file;                  /* not a block device, whose times say nothing */
};

/* What a file is and when it was changed last: whoever changes a byte of it changes this first. */
struct identity {
	uint64_t device, inode, size;
	int64_t mtime_s, mtime_ns, ctime_s, ctime_ns;
};

/* All return 0 or a negative errno. */
int file_attach(struct file *, int fd, uint64_t size, bool is_direct);
int file_look(const struct file *, struct identity *);
/* Into a buffer that is aligned.  -EIO: the file ends before that, as it was cut off. */
int file_read(const struct file *, uint64_t first, uint32_t pages, uint8_t *buffer);
/* They need not stay in the page cache, where they are. */
void file_forget(const struct file *, uint64_t first, uint64_t pages);
/* From `offset` on, `most` at most: how many; holes are whole pages. */
int file_extents(const struct file *, uint64_t count, uint64_t offset, struct nbd_extent *,
		 unsigned most);

static inline bool identity_is(const struct identity *a, const struct identity *b)
{
	return a->device == b->device && a->inode == b->inode && a->size == b->size &&
	       a->mtime_s == b->mtime_s && a->mtime_ns == b->mtime_ns &&
	       a->ctime_s == b->ctime_s && a->ctime_ns == b->ctime_ns;
}

#endif
