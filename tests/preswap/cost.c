/* SPDX-License-Identifier: BSD-3-Clause */
/* A device whose pages are read or written again and again, to count instructions; a program for
 * tests/preswap/test_cost.py.
 *
 * Usage: cost FOLDER SHIFT read|write TIMES: one page in 2^SHIFT is followed by the sampler; pages are
 * taken at random, TIMES of them, after all have been written.
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "requests.h"

#define PAGES 8192u
#define CHECK(what) check((what), #what)

static struct device d;
static struct epochs epochs;
static struct sampler sampler;
static uint8_t in_tmem[PAGES / 8];
static uint64_t state = 1;

static void check(bool right, const char *what)
{
	if (!right) {
		fprintf(stderr, "not so: %s\n", what);
		exit(1);
	}
}

static uint32_t drawn(uint32_t below)
{
	state = state * 6364136223846793005u + 1442695040888963407u;
	return (uint32_t)((state >> 33) % below);
}

static void begin(const char *folder, uint32_t shift)
{
	static const uint8_t uuid[16];
	char path[4096];
	int map = memfd_create("map", 0), disk = memfd_create("disk", 0);
	struct tmem_host *host;

	snprintf(path, sizeof path, "%s/arena", folder);
	unlink(path);
	CHECK(!tmem_create(path, "", &host));
	tmem_set_limit(host, 64u << 20);
	CHECK(!ftruncate(disk, PAGES * PAGE_BYTES) && !ftruncate(map, PAGES));
	CHECK(!epochs_init(&epochs) && !sampler_init(&sampler, shift));
	d = (struct device){.tmem = &tmem_ops, .host = host, .pages = PAGES, .epochs = &epochs,
			    .sampler = &sampler, .in_tmem = in_tmem, .is_marked = true};
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

static void use(bool write, uint32_t page)
{
	static uint8_t bytes[PAGE_BYTES];
	struct progress progress = {0};

	/* A quarter of it does not compress. */
	for (unsigned i = 0; write && i < PAGE_BYTES / 4; i += 4)
		memcpy(bytes + i, &(uint32_t){drawn(UINT32_MAX)}, 4);
	if (write)
		CHECK(!request_write(&d, bytes, PAGE_BYTES, (uint64_t)page * PAGE_BYTES, 0, &progress));
	else
		CHECK(!request_read(&d, bytes, PAGE_BYTES, (uint64_t)page * PAGE_BYTES, 0, &progress));
}

int main(int argc, char **argv)
{
	CHECK(argc == 5);
	begin(argv[1], (uint32_t)atoi(argv[2]));
	for (uint32_t page = 1; page < PAGES; page++)
		use(true, page);
	for (int i = atoi(argv[4]); i > 0; i--)
		use(!strcmp(argv[3], "write"), 1 + drawn(PAGES - 1));
}
