/* SPDX-License-Identifier: BSD-3-Clause */
#define _GNU_SOURCE                    /* SEEK_DATA */
#include "file.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

int file_attach(struct file *f, int fd, uint64_t size, bool is_direct)
{
	struct stat s;

	if (fstat(fd, &s))
		return -errno;
	*f = (struct file){.fd = fd, .size = size, .is_direct = is_direct,
			   .is_file = S_ISREG(s.st_mode)};
	return 0;
}

int file_look(const struct file *f, struct identity *to)
{
	struct stat s;

	if (fstat(f->fd, &s))
		return -errno;
	if (f->is_file)
		*to = (struct identity){s.st_dev, s.st_ino, (uint64_t)s.st_size,
					s.st_mtim.tv_sec, s.st_mtim.tv_nsec,
					s.st_ctim.tv_sec, s.st_ctim.tv_nsec};
	else
		*to = (struct identity){.device = s.st_rdev, .size = f->size};
	return 0;
}

static uint64_t min_of(uint64_t a, uint64_t b)
{
	return a < b ? a : b;
}

/* Whole pages are asked for, as O_DIRECT wants it: at the file's end less comes. */
int file_read(const struct file *f, uint64_t first, uint32_t pages, uint8_t *buffer)
{
	uint64_t at = first * PAGE_BYTES, all = (uint64_t)pages * PAGE_BYTES, done = 0;
	uint64_t wanted = min_of(all, f->size - at);

	while (done < wanted) {
		ssize_t n = pread(f->fd, buffer + done, all - done, (off_t)(at + done));
		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			return n ? -errno : -EIO;
		done += (uint64_t)n;
	}
	memset(buffer + wanted, 0, all - wanted);
	return 0;
}

void file_forget(const struct file *f, uint64_t first, uint64_t pages)
{
	if (!f->is_direct)
		posix_fadvise(f->fd, (off_t)(first * PAGE_BYTES), (off_t)(pages * PAGE_BYTES),
			      POSIX_FADV_DONTNEED);
}

/* A file system that knows of no holes says EINVAL, and a block device has none. */
static int64_t seek(const struct file *f, uint64_t at, int whence, uint64_t otherwise)
{
	off_t found = f->is_file ? lseek(f->fd, (off_t)at, whence) : -1;

	if (found >= 0)
		return (int64_t)min_of((uint64_t)found, f->size);
	if (f->is_file && errno == ENXIO)
		return (int64_t)f->size;
	return !f->is_file || errno == EINVAL ? (int64_t)otherwise : -errno;
}

static uint64_t page_before(uint64_t at)
{
	return at / PAGE_BYTES * PAGE_BYTES;
}

/* Where the run of data, or of a hole, ends in which `at` lies. */
static int64_t end_of_run(const struct file *f, uint64_t at, bool *hole)
{
	int64_t data = seek(f, at, SEEK_DATA, at);

	if (data < 0)
		return data;
	/* The last page goes with what it holds, where the file ends within it. */
	uint64_t start = (uint64_t)data == f->size ? f->size : page_before((uint64_t)data);
	*hole = start > at;
	if (*hole)
		return (int64_t)start;
	int64_t end = seek(f, (uint64_t)data, SEEK_HOLE, f->size);
	if (end < 0)
		return end;
	return (int64_t)min_of(page_before((uint64_t)end + PAGE_BYTES - 1), f->size);
}

int file_extents(const struct file *f, uint64_t count, uint64_t offset, struct nbd_extent *to,
		 unsigned most)
{
	uint64_t at = page_before(offset), last = offset + count;
	unsigned n = 0;

	while (at < last && n < most) {
		bool hole = false;
		int64_t end = end_of_run(f, at, &hole);
		if (end < 0)
			return (int)end;
		/* It was cut off, or changes as it is looked at: that is for a read to say. */
		if ((uint64_t)end <= at)
			end = (int64_t)last;
		if (n && to[n - 1].hole == hole)
			to[n - 1].length += (uint64_t)end - at;
		else
			to[n++] = (struct nbd_extent){at, (uint64_t)end - at, hole};
		at = (uint64_t)end;
	}
	return (int)n;
}
