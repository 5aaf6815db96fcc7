/* SPDX-License-Identifier: BSD-3-Clause */
/* Makes system calls fail, or wait, as the rule in the file that PRESWAPD_INJECT names says.
 * Preloaded into the server; tests/faults/injection.py writes the rule while it runs. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/aio_abi.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

enum call {
	READ = 1, WRITE = 2, SYNC = 4, PUNCH = 8, RENAME = 16, UNLINK = 32, SEEK_DATA_ = 64,
	LOCK_AGAIN = 128,
};

struct rule {
	uint32_t calls;                /* the last word written when a rule is set */
	int32_t error;
	uint32_t hold;
	uint32_t caught;
	uint64_t first, end;           /* bytes of the file */
	char path[96];                 /* how it ends */
};

static struct rule *rule;

__attribute__((constructor)) static void attach(void)
{
	const char *name = getenv("PRESWAPD_INJECT");
	int fd = name ? open(name, O_RDWR | O_CLOEXEC) : -1;

	if (fd < 0)
		return;
	void *at = mmap(NULL, sizeof *rule, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	close(fd);
	if (at != MAP_FAILED)
		rule = at;
}

static int ends_so(const char *path)
{
	size_t wanted = strlen(rule->path), length = strlen(path);

	return length >= wanted && !strcmp(path + length - wanted, rule->path);
}

static int concerns(enum call call)
{
	return rule && __atomic_load_n(&rule->calls, __ATOMIC_ACQUIRE) & call;
}

/* 0, or -1 with errno: the call is not to be made. */
static int caught(void)
{
	__atomic_fetch_add(&rule->caught, 1, __ATOMIC_RELAXED);
	while (__atomic_load_n(&rule->hold, __ATOMIC_ACQUIRE))
		usleep(500);
	errno = rule->error;
	return rule->error ? -1 : 0;
}

static int on_path(enum call call, const char *path)
{
	return concerns(call) && ends_so(path) ? caught() : 0;
}

static int meets(enum call call, int fd, uint64_t offset, uint64_t count)
{
	char link[32], path[512];

	if (!concerns(call) || offset >= rule->end || offset + count <= rule->first)
		return 0;
	snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
	ssize_t n = readlink(link, path, sizeof path - 1);
	if (n < 0)
		return 0;
	path[n] = '\0';
	return ends_so(path);
}

static int on_fd(enum call call, int fd, uint64_t offset, uint64_t count)
{
	return meets(call, fd, offset, count) ? caught() : 0;
}

#define REAL(type, name, ...) \
	static type (*real)(__VA_ARGS__); \
	if (!real) \
		real = (type (*)(__VA_ARGS__))dlsym(RTLD_NEXT, name)

ssize_t pread64(int fd, void *to, size_t count, off_t offset)
{
	REAL(ssize_t, "pread64", int, void *, size_t, off_t);
	return on_fd(READ, fd, (uint64_t)offset, count) ? -1 : real(fd, to, count, offset);
}

ssize_t pread(int fd, void *to, size_t count, off_t offset)
{
	return pread64(fd, to, count, offset);
}

ssize_t pwrite64(int fd, const void *from, size_t count, off_t offset)
{
	REAL(ssize_t, "pwrite64", int, const void *, size_t, off_t);
	return on_fd(WRITE, fd, (uint64_t)offset, count) ? -1 : real(fd, from, count, offset);
}

ssize_t pwrite(int fd, const void *from, size_t count, off_t offset)
{
	return pwrite64(fd, from, count, offset);
}

/* Writes that are submitted together: where one of them would be caught none is taken, and who
 * submits them has to make them one by one. */
long syscall(long number, ...)
{
	va_list rest;
	long a[6];

	va_start(rest, number);
	for (int i = 0; i < 6; i++)
		a[i] = va_arg(rest, long);
	va_end(rest);
	struct iocb **blocks = number == SYS_io_submit ? (struct iocb **)a[2] : NULL;
	for (long i = 0; blocks && i < a[1]; i++) {
		const struct iocb *b = blocks[i];
		if (meets(WRITE, (int)b->aio_fildes, (uint64_t)b->aio_offset, b->aio_nbytes)) {
			errno = EAGAIN;
			return -1;
		}
	}
	REAL(long, "syscall", long, ...);
	return real(number, a[0], a[1], a[2], a[3], a[4], a[5]);
}

int fsync(int fd)
{
	REAL(int, "fsync", int);
	return on_fd(SYNC, fd, 0, UINT64_MAX) ? -1 : real(fd);
}

int fdatasync(int fd)
{
	REAL(int, "fdatasync", int);
	return on_fd(SYNC, fd, 0, UINT64_MAX) ? -1 : real(fd);
}

int fallocate64(int fd, int mode, off_t offset, off_t count)
{
	REAL(int, "fallocate64", int, int, off_t, off_t);
	if (mode & FALLOC_FL_PUNCH_HOLE && on_fd(PUNCH, fd, (uint64_t)offset, (uint64_t)count))
		return -1;
	return real(fd, mode, offset, count);
}

int fallocate(int fd, int mode, off_t offset, off_t count)
{
	return fallocate64(fd, mode, offset, count);
}

off_t lseek64(int fd, off_t offset, int whence)
{
	REAL(off_t, "lseek64", int, off_t, int);
	if (whence == SEEK_DATA && on_fd(SEEK_DATA_, fd, (uint64_t)offset, UINT32_MAX))
		return -1;
	return real(fd, offset, whence);
}

off_t lseek(int fd, off_t offset, int whence)
{
	return lseek64(fd, offset, whence);
}

int rename(const char *from, const char *to)
{
	REAL(int, "rename", const char *, const char *);
	return on_path(RENAME, to) ? -1 : real(from, to);
}

int unlink(const char *path)
{
	REAL(int, "unlink", const char *);
	return on_path(UNLINK, path) ? -1 : real(path);
}

/* No system call, but held like one: a thread that tells others of a change under a mutex and comes
 * at once to lock it again.  Whoever waited for the change may go on by then.  Not at once is what
 * the maintenance thread does, some times a second. */
#define AT_ONCE_NS 100000000u

static __thread pthread_mutex_t *locked, *told_under;
static __thread uint64_t told_at;

static uint64_t now(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

int pthread_cond_broadcast(pthread_cond_t *cond)
{
	REAL(int, "pthread_cond_broadcast", pthread_cond_t *);
	told_under = locked;
	told_at = now();
	return real(cond);
}

int pthread_mutex_lock(pthread_mutex_t *mutex)
{
	REAL(int, "pthread_mutex_lock", pthread_mutex_t *);
	if (concerns(LOCK_AGAIN) && mutex == told_under && now() - told_at < AT_ONCE_NS)
		caught();
	locked = mutex;
	return real(mutex);
}
