/* SPDX-License-Identifier: BSD-3-Clause */
/* A device whose pages are read or written again and again, to count instructions; a program for
 * tests/preswap/test_cost.py.
 *
 * Usage: cost FOLDER SHIFT read|write TIMES: one page in 2^SHIFT is followed by the sampler; pages are
 * taken at random, TIMES of them, after all have been written.
 */
#define _GNU_SOURCE
#include <string.h>

#include "requests.h"

#define PAGES 8192u
#include "lone_device.h"

static uint64_t state = 1;

static uint32_t drawn(uint32_t below)
{
	state = state * 6364136223846793005u + 1442695040888963407u;
	return (uint32_t)((state >> 33) % below);
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
	begin(argv[1], memfd_create("disk", 0), (uint32_t)atoi(argv[2]));
	for (uint32_t page = 1; page < PAGES; page++)
		use(true, page);
	for (int i = atoi(argv[4]); i > 0; i--)
		use(!strcmp(argv[3], "write"), 1 + drawn(PAGES - 1));
}
