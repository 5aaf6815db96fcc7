/* SPDX-License-Identifier: BSD-3-Clause */
#include "arena.h"

#include <xxhash.h>
/* The library's choice among SSE2, AVX2 and AVX-512 when the program runs; same sums. */
#if defined(__x86_64__) && __has_include(<xxh_x86dispatch.h>)
#include <xxh_x86dispatch.h>
#endif

uint64_t payload_digest(const void *bytes, size_t length)
{
	return XXH3_64bits(bytes, length);
}
