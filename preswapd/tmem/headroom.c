/* SPDX-License-Identifier: BSD-3-Clause */
#include "headroom.h"

#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include "clock.h"

/* What the process takes without asking: Python, the control socket's clients. */
#define CGROUP_RESERVE (32ull << 20)
/* The pages that are there already need their index, also where the limit was lowered since. */
#define CGROUP_LAST_RESERVE (8ull << 20)
#define ASK_EVERY_NS 100000000ull

void headroom_init(struct headroom *h)
{
	*h = (struct headroom){
		.meminfo = -1, .arena = -1, .spare = UINT64_MAX, .needed = UINT64_MAX};
}

void headroom_close(struct headroom *h)
{
	if (h->meminfo >= 0)
		close(h->meminfo);
	for (size_t i = 0; i < h->n_cgroups; i++)
		for (size_t j = 0; j < CGROUP_FILES; j++)
			if (h->cgroups[i][j] >= 0)
				close(h->cgroups[i][j]);
	headroom_init(h);
}

/* A small file under /proc or /sys. */
struct text {
	char bytes[8192];
};

static bool read_text(int fd, struct text *text)
{
	ssize_t n = fd < 0 ? -1 : pread(fd, text->bytes, sizeof text->bytes - 1, 0);

	text->bytes[n > 0 ? n : 0] = '\0';
	return n > 0;
}

/* The number behind `key`, or `otherwise`. */
static uint64_t number_behind(const struct text *text, const char *key, uint64_t otherwise)
{
	const char *at = strstr(text->bytes, key);
	char *end;

	if (!at)
		return otherwise;
	at += strlen(key);
	uint64_t value = strtoull(at, &end, 10);
	return end == at ? otherwise : value;
}

static uint64_t number_in(int fd, const char *key, uint64_t otherwise)
{
	struct text text;

	return read_text(fd, &text) ? number_behind(&text, key, otherwise) : otherwise;
}

static uint64_t above(uint64_t n, uint64_t kept)
{
	return n > kept ? n - kept : 0;
}

static uint64_t min_of(uint64_t a, uint64_t b)
{
	return a < b ? a : b;
}

static uint64_t max_of(uint64_t a, uint64_t b)
{
	return a > b ? a : b;
}

static uint64_t available(const struct headroom *h)
{
	uint64_t kib = number_in(h->meminfo, "MemAvailable:", UINT64_MAX / 1024);

	return kib * 1024;
}

static uint64_t in_file_system(const struct headroom *h)
{
	struct statvfs fs;

	if (h->arena < 0 || fstatvfs(h->arena, &fs) || fs.f_blocks == 0)
		return UINT64_MAX;             /* a tmpfs without a size has no end */
	return (uint64_t)fs.f_bavail * fs.f_frsize;
}

/* The usage is that of all groups below, too, and so must be this: version 1 has another line for it. */
static uint64_t of_all(const struct text *statistics, const char *total, const char *own)
{
	return number_behind(statistics, total, number_behind(statistics, own, 0));
}

/* Clean file pages count as usage, but the kernel drops them before it kills: those first that nobody
 * used lately, the only ones that the pool grows into. */
static uint64_t used_by(const int fds[CGROUP_FILES], bool also_active)
{
	struct text text;
	uint64_t clean = 0;

	if (read_text(fds[CGROUP_STATISTICS], &text)) {
		clean = of_all(&text, "\ntotal_inactive_file ", "\ninactive_file ");
		if (also_active)
			clean += above(of_all(&text, "\ntotal_active_file ", "\nactive_file "),
				       of_all(&text, "\ntotal_dirty ", "\nfile_dirty ") +
				       of_all(&text, "\ntotal_writeback ", "\nfile_writeback "));
	}
	return above(number_in(fds[CGROUP_USAGE], "", 0), clean);
}

/* All limits are read again.  Returns which of them allows no more for what is needed. */
static int ask(struct headroom *h)
{
	uint64_t needed = available(h), spare = UINT64_MAX;
	int limiter = -1;

	if (h->host_reserve)
		spare = above(needed, h->host_reserve + h->set_aside);
	spare = min_of(spare, above(in_file_system(h), h->shm_reserve));
	for (size_t i = 0; i < h->n_cgroups; i++) {
		const int *fds = h->cgroups[i];
		uint64_t used = used_by(fds, false) + h->set_aside;
		/* "max" is no number.  Above `high` nobody is killed, but all are held up. */
		uint64_t max = number_in(fds[CGROUP_MAX], "", UINT64_MAX);
		uint64_t high = number_in(fds[CGROUP_HIGH], "", UINT64_MAX);
		uint64_t here = above(max, used + CGROUP_LAST_RESERVE);
		spare = min_of(spare, above(min_of(max, high), used + CGROUP_RESERVE));
		if (here < needed) {
			needed = here;
			limiter = (int)i;
		}
	}
	__atomic_store_n(&h->spare, spare, __ATOMIC_RELAXED);
	__atomic_store_n(&h->needed, needed, __ATOMIC_RELAXED);
	__atomic_store_n(&h->taken, false, __ATOMIC_RELAXED);
	h->asked_at = coarse_ns();
	return limiter;
}

void headroom_set(struct headroom *h, uint64_t host_reserve, uint64_t shm_reserve, int arena,
		  const int (*cgroups)[CGROUP_FILES], size_t n)
{
	h->host_reserve = host_reserve;
	h->shm_reserve = shm_reserve;
	h->arena = shm_reserve ? arena : -1;
	if (h->meminfo < 0)
		h->meminfo = open("/proc/meminfo", O_RDONLY | O_CLOEXEC);
	h->n_cgroups = n < CGROUPS_MAX ? n : CGROUPS_MAX;
	if (h->n_cgroups)
		memcpy(h->cgroups, cgroups, h->n_cgroups * sizeof *cgroups);
	ask(h);
}

void headroom_set_aside(struct headroom *h, uint64_t bytes)
{
	if (h->set_aside == bytes)
		return;
	h->set_aside = bytes;
	ask(h);
}

uint64_t headroom_room(struct headroom *h, int *limiter)
{
	*limiter = ask(h);
	return __atomic_load_n(&h->needed, __ATOMIC_RELAXED);
}

uint64_t headroom_owed(const struct headroom *h)
{
	uint64_t owed = 0;

	for (size_t i = 0; i < h->n_cgroups; i++) {
		const int *fds = h->cgroups[i];
		uint64_t used = used_by(fds, true) + h->set_aside;
		uint64_t max = number_in(fds[CGROUP_MAX], "", UINT64_MAX);

		owed = max_of(owed, above(used + CGROUP_LAST_RESERVE, max));
	}
	return owed;
}

void headroom_look(struct headroom *h)
{
	if (__atomic_load_n(&h->taken, __ATOMIC_RELAXED))
		ask(h);
}

/* `all`: only if there is so much; otherwise what there is. */
static bool subtract(uint64_t *from, uint64_t bytes, bool all)
{
	uint64_t was = __atomic_load_n(from, __ATOMIC_RELAXED);

	do {
		if (all && was < bytes)
			return false;
	} while (!__atomic_compare_exchange_n(from, &was, above(was, bytes), true, __ATOMIC_RELAXED,
					      __ATOMIC_RELAXED));
	return true;
}

/* Also where it is refused: the next look may find more. */
static bool take(struct headroom *h, uint64_t *from, uint64_t *other, uint64_t bytes)
{
	bool done = subtract(from, bytes, true);

	if (done)
		subtract(other, bytes, false);
	__atomic_store_n(&h->taken, true, __ATOMIC_RELAXED);
	return done;
}

bool headroom_take(struct headroom *h, uint64_t bytes)
{
	uint64_t room = __atomic_load_n(&h->spare, __ATOMIC_RELAXED);

	if (coarse_ns() - h->asked_at >= ASK_EVERY_NS || (room < bytes && !h->refused))
		ask(h);
	h->refused = !take(h, &h->spare, &h->needed, bytes);
	return !h->refused;
}

bool headroom_has(const struct headroom *h, uint64_t bytes)
{
	return __atomic_load_n(&h->spare, __ATOMIC_RELAXED) >= bytes;
}

bool headroom_take_needed(struct headroom *h, uint64_t bytes)
{
	return take(h, &h->needed, &h->spare, bytes);
}
