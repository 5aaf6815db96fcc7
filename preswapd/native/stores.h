/* SPDX-License-Identifier: BSD-3-Clause */
/* Stores that a kill must find in order, and counters that threads share.
 *
 * What is in shared memory outlives a killed process, and the kill leaves the stores there in
 * program order: the processor cannot reorder them for the next process to see, only the compiler
 * can.  So the stores that the crash protocol names (docs/concurrency.md) are release stores with
 * a fence for the compiler behind them: nothing before one moves behind it, and nothing behind it
 * moves before it.  On x86 both are plain moves.
 */
#ifndef PRESWAPD_STORES_H
#define PRESWAPD_STORES_H

#include <stdint.h>

static inline void store_release(uint64_t *word, uint64_t value)
{
	__atomic_store_n(word, value, __ATOMIC_RELEASE);
	__atomic_signal_fence(__ATOMIC_SEQ_CST);
}

static inline void store_release_byte(uint8_t *byte, uint8_t value)
{
	__atomic_store_n(byte, value, __ATOMIC_RELEASE);
	__atomic_signal_fence(__ATOMIC_SEQ_CST);
}

static inline uint64_t load_acquire(const uint64_t *word)
{
	return __atomic_load_n(word, __ATOMIC_ACQUIRE);
}

static inline uint8_t load_acquire_byte(const uint8_t *byte)
{
	return __atomic_load_n(byte, __ATOMIC_ACQUIRE);
}

/* Counters and gauges order nothing: a reader sees each alone, a moment late. */
static inline void count_add(uint64_t *counter, uint64_t n)
{
	__atomic_fetch_add(counter, n, __ATOMIC_RELAXED);
}

static inline void count_sub(uint64_t *counter, uint64_t n)
{
	__atomic_fetch_sub(counter, n, __ATOMIC_RELAXED);
}

static inline void count_up(uint64_t *counter)
{
	count_add(counter, 1);
}

static inline uint64_t count_of(const uint64_t *counter)
{
	return __atomic_load_n(counter, __ATOMIC_RELAXED);
}

#endif
