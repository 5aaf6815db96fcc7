/* SPDX-License-Identifier: BSD-3-Clause */
#define _GNU_SOURCE
#include "disk.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

void disk_init(struct disk *d)
{
	*d = (struct disk){.fd = -1};
	syncs_init(&d->syncs);
}

void disk_destroy(struct disk *d)
{
	syncs_destroy(&d->syncs);
}

void disk_attach(struct disk *d, int fd, uint64_t size)
{
	struct stat s;
	int flags = fcntl(fd, F_GETFL);

	d->fd = fd;
	d->size = size;
	d->is_file = !fstat(fd, &s) && S_ISREG(s.st_mode);
	d->is_direct = flags >= 0 && flags & O_DIRECT;
}

bool disk_is_cut_off(const struct disk *d, uint64_t *size)
{
	struct stat s;

	if (!d->is_file || fstat(d->fd, &s))
		return false;
	*size = (uint64_t)s.st_size;
	return *size < d->size;
}

int disk_lengthen(const struct disk *d)
{
	return ftruncate(d->fd, (off_t)d->size) ? -errno : 0;
}

/* All of the pages, into `to` or, where that is NULL, out of `from`. */
static int transfer(const struct disk *d, uint64_t first, uint32_t pages, uint8_t *to,
		    const uint8_t *from)
{
	size_t done = 0, all = (size_t)pages * PAGE_BYTES;

	while (done < all) {
		off_t at = (off_t)(first * PAGE_BYTES + done);
		ssize_t n = to ? pread(d->fd, to + done, all - done, at) :
				 pwrite(d->fd, from + done, all - done, at);
		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			return n ? -errno : -EIO;
		done += (size_t)n;
	}
	return 0;
}

int disk_read(const struct disk *d, uint64_t first, uint32_t pages, uint8_t *buffer)
{
	return transfer(d, first, pages, buffer, NULL);
}

int disk_write(const struct disk *d, uint64_t first, uint32_t pages, const uint8_t *buffer)
{
	uint64_t size;

	return disk_is_cut_off(d, &size) ? -EIO : transfer(d, first, pages, NULL, buffer);
}

static int noted(struct disk *d, int err)
{
	if (err)
		__atomic_store_n(&d->sync_failed, true, __ATOMIC_RELAXED);
	return err;
}

int disk_sync(struct disk *d)
{
	return noted(d, syncs_data(&d->syncs, d->fd, d->is_direct));
}

int disk_sync_all(struct disk *d)
{
	return noted(d, syncs_all(&d->syncs, d->fd, d->is_direct));
}

int disk_punch(struct disk *d, uint64_t first, uint64_t pages)
{
	if (d->no_punch)
		return 0;
	while (fallocate(d->fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
			 (off_t)(first * PAGE_BYTES), (off_t)(pages * PAGE_BYTES))) {
		if (errno == EOPNOTSUPP)
			d->no_punch = true;
		if (errno != EINTR)
			return errno == EOPNOTSUPP ? 0 : -errno;
	}
	return 0;
}

int disk_clear(struct disk *d, uint64_t first, uint32_t pages, bool fast)
{
	uint64_t size;

	if (disk_is_cut_off(d, &size))
		return -EIO;
	int err = disk_punch(d, first, pages);
	if (err || !d->no_punch)
		return err;
	if (fast)
		return -EOPNOTSUPP;
	uint8_t *buffer = buffer_of_thread();
	if (!buffer)
		return -ENOMEM;
	memset(buffer, 0, (size_t)pages * PAGE_BYTES);
	return transfer(d, first, pages, NULL, buffer);
}

/* A file system that knows of no holes says EINVAL: all of the file has blocks. */
static off_t seek(const struct disk *d, off_t at, int whence, off_t no_holes)
{
	off_t found = lseek(d->fd, at, whence);

	return found < 0 && errno == EINVAL ? no_holes : found;
}

int disk_next_written(const struct disk *d, uint64_t *first, uint64_t *pages)
{
	off_t size = (off_t)d->size, at = (off_t)(*first * PAGE_BYTES);
	off_t start = d->is_file ? seek(d, at, SEEK_DATA, at) : size;

	if (start < 0 && errno == ENXIO)
		start = size;
	off_t end = start < 0 || start >= size ? start : seek(d, start, SEEK_HOLE, size);
	if (start < 0 || end < 0)
		return -errno;
	if (end > size)
		end = size;
	*first = (uint64_t)start / PAGE_BYTES;
	*pages = ((uint64_t)end + PAGE_BYTES - 1) / PAGE_BYTES - *first;
	return 0;
}
