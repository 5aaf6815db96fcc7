/* SPDX-License-Identifier: BSD-3-Clause */
#include "buffer.h"

#include <pthread.h>
#include <stdlib.h>

static pthread_key_t buffer_key;
static pthread_once_t buffer_once = PTHREAD_ONCE_INIT;
static int no_key;
static uint64_t held;                  /* bytes; atomic */

static void give_back(void *b)
{
	free(b);
	__atomic_fetch_sub(&held, BUFFER_PAGES * PAGE_BYTES, __ATOMIC_RELAXED);
}

static void make_key(void)
{
	no_key = pthread_key_create(&buffer_key, give_back);
}

uint8_t *buffer_of_thread(void)
{
	pthread_once(&buffer_once, make_key);
	if (no_key)
		return NULL;
	uint8_t *b = pthread_getspecific(buffer_key);
	if (b)
		return b;
	b = aligned_alloc(PAGE_BYTES, BUFFER_PAGES * PAGE_BYTES);
	if (b && pthread_setspecific(buffer_key, b)) {
		free(b);
		b = NULL;
	}
	if (b)
		__atomic_fetch_add(&held, BUFFER_PAGES * PAGE_BYTES, __ATOMIC_RELAXED);
	return b;
}

uint64_t transfer_buffers_held(void)
{
	return __atomic_load_n(&held, __ATOMIC_RELAXED);
}
