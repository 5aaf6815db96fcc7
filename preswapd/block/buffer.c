/* SPDX-License-Identifier: BSD-3-Clause */
#include "buffer.h"

#include <pthread.h>
#include <stdlib.h>

static pthread_key_t buffer_key;
static pthread_once_t buffer_once = PTHREAD_ONCE_INIT;
static int no_key;

static void make_key(void)
{
	no_key = pthread_key_create(&buffer_key, free);
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
	return b;
}
