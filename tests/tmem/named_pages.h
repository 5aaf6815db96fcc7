/* SPDX-License-Identifier: BSD-3-Clause */
/* Pages that name their handle and version, for programs that hammer a host. */
#ifndef PRESWAPD_NAMED_PAGES_H
#define PRESWAPD_NAMED_PAGES_H

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tmem.h"

static void fail(const char *what, uint32_t handle, uint64_t version)
{
	fprintf(stderr, "%s: handle %u, version %llu\n", what, handle, (unsigned long long)version);
	exit(1);
}

/* Names itself, then `noise` bytes that follow from the name, then zeros. */
static void make_page(uint64_t *page, uint32_t handle, uint64_t version, unsigned noise)
{
	uint64_t x = (handle + 1) * 0x9e3779b97f4a7c15ull ^ version * 0xbf58476d1ce4e5b9ull;

	memset(page, 0, TMEM_PAGE);
	page[0] = handle;
	page[1] = version;
	for (unsigned i = 2; i < noise / 8; i++) {
		x ^= x << 13;
		x ^= x >> 7;
		x ^= x << 17;
		page[i] = x;
	}
}

#endif
