/* SPDX-License-Identifier: BSD-3-Clause */
#define _GNU_SOURCE                    /* SEEK_DATA, fallocate */
#include "file.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/fs.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <unistd.h>

void file_init(struct file *f)
{
	*f = (struct file){.fd = -1};
	syncs_init(&f->syncs);
}

void file_destroy(struct file *f)
{
	syncs_destroy(&f->syncs);
}

int file_attach(struct file *f, int fd, uint64_t size, bool is_direct, bool is_writable)
{
	struct stat s;

	if (fstat(fd, &s))
		return -errno;
	f->fd = fd;
	f->size = size;
	f->is_direct = is_direct;
	f->is_file = S_ISREG(s.st_mode);
	f->is_writable = is_writable;
	return 0;
}

int file_look(const struct file *f, struct identity *to)
{
	struct stat s;

	if (fstat(f->fd, &s))
		return -errno;
	if (!f->is_file) {
		*to = (struct identity){.device = s.st_rdev, .size = f->size};
		return 0;
	}
	*to = (struct identity){.device = s.st_dev, .inode = s.st_ino, .size = (uint64_t)s.st_size};
	if (f->is_writable)
		return 0;
	to->mtime_s = s.st_mtim.tv_sec;
	to->mtime_ns = s.st_mtim.tv_nsec;
	to->ctime_s = s.st_ctim.tv_sec;
	to->ctime_ns = s.st_ctim.tv_nsec;
	return 0;
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

/* --- Changes ------------------------------------------------------------------------------------ */

static bool is_cut_off(const struct file *f)
{
	struct stat s;

	return f->is_file && (fstat(f->fd, &s) || (uint64_t)s.st_size < f->size);
}

/* The last page ends where the file does. */
static uint64_t bytes_of(const struct file *f, uint64_t first, uint64_t pages)
{
	return min_of(pages * PAGE_BYTES, f->size - first * PAGE_BYTES);
}

static int write_all(const struct file *f, const uint8_t *from, uint64_t all, uint64_t at)
{
	for (uint64_t done = 0; done < all;) {
		ssize_t n = pwrite(f->fd, from + done, all - done, (off_t)(at + done));
		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			return n ? -errno : -EIO;
		done += (uint64_t)n;
	}
	return 0;
}

int file_write(const struct file *f, uint64_t first, uint32_t pages, const uint8_t *buffer)
{
	if (is_cut_off(f))
		return -EIO;
	return write_all(f, buffer, bytes_of(f, first, pages), first * PAGE_BYTES);
}

/* -EOPNOTSUPP: nothing was done, and it is not tried again. */
static int allocate(const struct file *f, int mode, bool *unknown, uint64_t first, uint64_t pages)
{
	int err = EOPNOTSUPP;

	if (__atomic_load_n(unknown, __ATOMIC_RELAXED))
		return -err;
	do
		err = fallocate(f->fd, mode | FALLOC_FL_KEEP_SIZE, (off_t)(first * PAGE_BYTES),
				(off_t)bytes_of(f, first, pages)) ? errno : 0;
	while (err == EINTR);
	if (err != EOPNOTSUPP && err != ENODEV && err != ENOSYS)
		return -err;
	__atomic_store_n(unknown, true, __ATOMIC_RELAXED);
	return -EOPNOTSUPP;
}

static int punch(struct file *f, uint64_t first, uint64_t pages)
{
	return allocate(f, FALLOC_FL_PUNCH_HOLE, &f->no_punch, first, pages);
}

static int write_zeros(const struct file *f, uint64_t first, uint64_t pages)
{
	uint8_t *buffer = buffer_of_thread();
	int err = buffer ? 0 : -ENOMEM;

	if (!err)
		memset(buffer, 0, min_of(pages, BUFFER_PAGES) * PAGE_BYTES);
	for (uint64_t done = 0; !err && done < pages; done += BUFFER_PAGES) {
		uint64_t n = min_of(pages - done, BUFFER_PAGES);
		err = write_all(f, buffer, bytes_of(f, first + done, n), (first + done) * PAGE_BYTES);
	}
	return err;
}

int file_clear(struct file *f, uint64_t first, uint64_t pages, bool may_trim, bool fast)
{
	if (is_cut_off(f))
		return -EIO;
	int err = may_trim ? punch(f, first, pages) : -EOPNOTSUPP;
	/* A block device that cannot do that by itself has zeros written to it. */
	if (err == -EOPNOTSUPP && (f->is_file || !fast))
		err = allocate(f, FALLOC_FL_ZERO_RANGE, &f->no_zero_range, first, pages);
	return err == -EOPNOTSUPP && !fast ? write_zeros(f, first, pages) : err;
}

int file_trim(struct file *f, uint64_t first, uint64_t pages)
{
	uint64_t range[2] = {first * PAGE_BYTES, bytes_of(f, first, pages)};
	int err = f->is_file ? punch(f, first, pages) : ioctl(f->fd, BLKDISCARD, range) ? -errno : 0;

	return err == -EOPNOTSUPP ? 0 : err;
}

int file_sync(struct file *f)
{
	return syncs_data(&f->syncs, f->fd, f->is_direct);
}

/* --- What is there ------------------------------------------------------------------------------- */

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
