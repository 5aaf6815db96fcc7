/* SPDX-License-Identifier: BSD-3-Clause */
/* Logarithms of whole numbers, sixteen steps to a doubling: each step is 1/16 to 1/32 more. */
#ifndef PRESWAPD_LOG16_H
#define PRESWAPD_LOG16_H

#include <stdint.h>

/* 0 for 0 and 1; at most 16 * 64 - 1. */
static inline unsigned log16_of(uint64_t n)
{
	if (n < 2)
		return 0;
	unsigned doubling = 63u - (unsigned)__builtin_clzll(n);
	unsigned step = doubling >= 4 ? n >> (doubling - 4) & 15 : n << (4 - doubling) & 15;

	return doubling * 16 + step;
}

/* The least number with this logarithm, for steps of numbers that are whole: from 2^4 on. */
static inline uint64_t log16_least(unsigned steps)
{
	uint64_t mantissa = 16 + steps % 16;
	unsigned doubling = steps / 16;

	return doubling >= 4 ? mantissa << (doubling - 4) : mantissa >> (4 - doubling);
}

#endif
