/* SPDX-License-Identifier: BSD-3-Clause */
#include "headroom.h"

#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "clock.h"

#define CGROUP_RESERVE (32ull << 20)
#define ASK_EVERY_NS 100000000ull

void headroom_init(struct headroom *h)
{
	*h = (struct headroom){.meminfo = -1};
}

void headroom_set(struct headroom *h, uint64_t host_reserve, const int (*cgroups)[3], size_t n)
{
	h->host_reserve = host_reserve;
	if (h->meminfo < 0)
		h->meminfo = open("/proc/meminfo", O_RDONLY | O_CLOEXEC);
	h->n_cgroups = n < CGROUPS_MAX ? n : CGROUPS_MAX;
	if (h->n_cgroups)
		memcpy(h->cgroups, cgroups, h->n_cgroups * sizeof *cgroups);
}

void headroom_close(struct headroom *h)
{
	if (h->meminfo >= 0)
		close(h->meminfo);
	for (size_t i = 0; i < h->n_cgroups; i++)
		for (int j = 0; j < 3; j++)
			close(h->cgroups[i][j]);
	headroom_init(h);
}

/* The number behind `key` in a small file under /proc or /sys, or `otherwise`. */
static uint64_t number_in(int fd, const char *key, uint64_t otherwise)
{
	char text[8192];
	ssize_t n = pread(fd, text, sizeof text - 1, 0);

	if (n <= 0)
		return otherwise;
	text[n] = '\0';
	const char *at = text;
	if (*key) {
		at = strstr(text, key);
		if (!at)
			return otherwise;
		at += strlen(key);
	}
	char *end;
	uint64_t value = strtoull(at, &end, 10);
	return end == at ? otherwise : value;
}

static uint64_t above(uint64_t n, uint64_t kept)
{
	return n > kept ? n - kept : 0;
}

/* Clean file pages count as usage, but the kernel drops them before it kills. */
static uint64_t cgroup_room(const int fds[3])
{
	uint64_t limit = number_in(fds[0], "", UINT64_MAX);      /* "max" is no number */
	uint64_t usage = number_in(fds[1], "", 0);
	uint64_t clean = number_in(fds[2], "\ninactive_file ", 0);

	return above(limit, above(usage, clean) + CGROUP_RESERVE);
}

static uint64_t ask(const struct headroom *h)
{
	uint64_t room = UINT64_MAX;

	if (h->host_reserve && h->meminfo >= 0) {
		uint64_t kib = number_in(h->meminfo, "MemAvailable:", UINT64_MAX / 1024);
		room = above(kib * 1024, h->host_reserve);
	}
	for (size_t i = 0; i < h->n_cgroups; i++) {
		uint64_t here = cgroup_room(h->cgroups[i]);
		room = here < room ? here : room;
	}
	return room;
}

bool headroom_take(struct headroom *h, uint64_t bytes)
{
	uint64_t now = coarse_ns();

	bool used_up = h->room < bytes && !h->refused;
	if (!h->asked_at || now - h->asked_at >= ASK_EVERY_NS || used_up) {
		h->room = ask(h);
		h->asked_at = now;
	}
	h->refused = h->room < bytes;
	if (h->refused)
		return false;
	h->room -= bytes;
	return true;
}
