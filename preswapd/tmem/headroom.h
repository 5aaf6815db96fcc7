/* SPDX-License-Identifier: BSD-3-Clause */
/* May memory be taken?  Memory beyond a cgroup's limit is no error but a SIGKILL, and the host's OOM
 * killer frees nothing by killing this process, as the arena outlives it; and where the arena's
 * file system is full, the next program that touches a file of its own there gets a SIGBUS.  So who
 * wants memory asks here first. */
#ifndef PRESWAPD_HEADROOM_H
#define PRESWAPD_HEADROOM_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "tmem.h"

#define CGROUPS_MAX 16u

enum cgroup_file { CGROUP_MAX, CGROUP_HIGH, CGROUP_USAGE, CGROUP_STATISTICS };
#define CGROUP_FILES TMEM_CGROUP_FILES

struct headroom {
	uint64_t host_reserve;         /* bytes of MemAvailable that stay untouched; 0: not asked */
	uint64_t shm_reserve;          /* bytes of the arena's file system that stay free */
	uint64_t set_aside;            /* bytes that others may take without asking */
	int meminfo;
	int arena;                     /* somebody else's descriptor; -1: its file system is not asked */
	int cgroups[CGROUPS_MAX][CGROUP_FILES];        /* -1: there is no such file */
	size_t n_cgroups;
	uint64_t asked_at;             /* ns, CLOCK_MONOTONIC_COARSE */
	/* What was there then, less what was taken since; atomic. */
	uint64_t spare;                /* for the arena: what is to stay free stays free */
	uint64_t needed;               /* for what stored pages need: nobody is killed */
	bool taken;                    /* anything since then; atomic */
	bool refused;                  /* the arena, last time: no second look before ASK_EVERY_NS */
};

void headroom_init(struct headroom *);
/* The descriptors of the cgroups are its own from now on. */
void headroom_set(struct headroom *, uint64_t host_reserve, uint64_t shm_reserve, int arena,
		  const int (*cgroups)[CGROUP_FILES], size_t n);
void headroom_close(struct headroom *);

/* --- Under the allocator's mutex --- */

/* Whether the arena may grow by so many bytes; it then counts them as taken.  Reads /proc every
 * 100 ms, and at once when the room of the last time is used up: memory can be filled at some
 * hundred MiB in that time. */
bool headroom_take(struct headroom *, uint64_t bytes);
/* Whether it might, as of the last look: for who can do without. */
bool headroom_has(const struct headroom *, uint64_t bytes);
/* To be called a few times a second: the others below do not read /proc themselves. */
void headroom_look(struct headroom *);
void headroom_set_aside(struct headroom *, uint64_t bytes);
/* Bytes that may be taken without anybody being killed, as of now, and who allows no more: a cgroup
 * by its number, or -1, the host. */
uint64_t headroom_room(struct headroom *, int *limiter);
/* Bytes by which the hard limit of a cgroup is too low, as of now, if all that is set aside were taken. */
uint64_t headroom_owed(const struct headroom *);

/* --- Without any lock, and without a system call: inside a page's lock --- */

/* Whether private memory that stored pages need may be taken; it then counts as taken. */
bool headroom_take_needed(struct headroom *, uint64_t bytes);

#endif
