/* SPDX-License-Identifier: BSD-3-Clause */
/* The buffers of nbdkit's worker threads: each keeps one that is as long as its longest request so
 * far, until its connection ends. */
#ifndef PRESWAPD_BUFFERS_H
#define PRESWAPD_BUFFERS_H

#include <pthread.h>
#include <stdint.h>
#include <sys/mman.h>
#include <unistd.h>

static pthread_key_t buffer_key;
static _Thread_local uint64_t buffer_mine;
static uint64_t buffer_all;            /* of all threads that live; atomic */

/* At a thread's end, with which its buffer goes, or when its memory has gone back. */
static void buffer_forget(void *mine)
{
	(void)mine;
	__atomic_fetch_sub(&buffer_all, buffer_mine, __ATOMIC_RELAXED);
	buffer_mine = 0;
}

static int buffer_init(void)
{
	return pthread_key_create(&buffer_key, buffer_forget);
}

/* Counted only where the thread's end will be seen. */
static inline void buffer_note(uint64_t bytes)
{
	if (bytes <= buffer_mine || pthread_setspecific(buffer_key, &buffer_mine))
		return;
	__atomic_fetch_add(&buffer_all, bytes - buffer_mine, __ATOMIC_RELAXED);
	buffer_mine = bytes;
}

static inline uint64_t buffers_held(void)
{
	return __atomic_load_n(&buffer_all, __ATOMIC_RELAXED);
}

/* The memory of a request that is too long goes back: the buffer keeps its addresses, and nobody
 * looks at what was in it.  Only whole pages, as others' data may lie on the first and the last. */
static inline void buffer_empty(void *at, uint64_t bytes)
{
	uintptr_t page = (uintptr_t)getpagesize();
	uintptr_t first = ((uintptr_t)at + page - 1) / page * page;
	uintptr_t end = ((uintptr_t)at + bytes) / page * page;

	if (first < end)
		madvise((void *)first, end - first, MADV_DONTNEED);
	buffer_forget(NULL);
}

#endif
