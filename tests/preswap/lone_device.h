/* SPDX-License-Identifier: BSD-3-Clause */
/* A device of PAGES zeros without a server, in a pool of its own: for programs of tests, which say how
 * many PAGES are. */
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

#include "device.h"

#define CHECK(what) check((what), #what)

static struct device d;
static struct epochs epochs;
static struct sampler sampler;
static uint8_t in_tmem[PAGES / 8];

/* At once, whatever other threads are at. */
static void check(bool right, const char *what)
{
	if (right)
		return;
	fprintf(stderr, "not so: %s\n", what);
	_Exit(1);
}

static int no_mark(void *owner)
{
	(void)owner;
	return 0;
}

/* `folder` holds its arena; one page in 2^shift is followed by the sampler. */
static void begin(const char *folder, int disk, uint32_t shift)
{
	static const uint8_t uuid[16];
	char path[4096];
	int map = memfd_create("map", 0);
	struct tmem_host *host;

	snprintf(path, sizeof path, "%s/arena", folder);
	unlink(path);
	CHECK(!tmem_create(path, "", &host));
	tmem_set_limit(host, 64u << 20);
	CHECK(disk >= 0 && !ftruncate(disk, PAGES * PAGE_BYTES));
	CHECK(map >= 0 && !ftruncate(map, PAGES));
	CHECK(!epochs_init(&epochs) && !sampler_init(&sampler, shift));
	d = (struct device){.tmem = &tmem_ops, .host = host, .pages = PAGES, .epochs = &epochs,
			    .sampler = &sampler, .in_tmem = in_tmem, .mark = no_mark, .is_marked = true};
	d.pool = (uint32_t)tmem_new_pool(host, uuid, TMEM_PERSISTENT);
	d.zone = (struct zone){.n = 1, .low_end = 1, .high_first = PAGES, .ranges = {{0, 1}}};
	marks_init(&d.marks);
	flights_init(&d.flights);
	device_set_max_pages(&d, UINT64_MAX);
	CHECK(!device_map(&d, map));
	disk_init(&d.disk);
	disk_attach(&d.disk, disk, PAGES * PAGE_BYTES);
	device_attach(&d);
}
