/* SPDX-License-Identifier: BSD-3-Clause */
/* Eight threads ask a courier for pages at once, and two set some; it is slow now and then, forgets some answers, and
 * is gone and replaced twenty times meanwhile.  Who has waited for a page must have that one, in its own buffer, and no
 * other thread's; and what is set comes whole and in order, or, while it is queued, is found there.  Ends with 0 when all was right; the sanitizers say the rest. */
#define _GNU_SOURCE
#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "clock.h"
#include "courier.h"
#include "frames.h"

#define ASKERS 8u
#define SETTERS 2u
#define COURIERS 20u
#define ASKS 200u              /* answered by each courier at least */
#define TIMEOUT_NS 3000000ull  /* to begin with */
#define MISSES_MOST (10 * ASKS) /* of one courier, before who asks waits twice as long */
#define VALUE_BYTES (4u * NAME_BYTES)
#define ONE_BY_ONE 5000u       /* sets */
#define LOOKED_BACK 500u       /* more than the queue takes */

static struct courier courier;
static bool is_over;
static unsigned long timeout_ns = TIMEOUT_NS;
static unsigned long whole, part, wrong, came, found;

#define CHECK(what)                                                                    \
	do {                                                                           \
		if (!(what)) {                                                         \
			fprintf(stderr, "%s:%d: not so: %s\n", __FILE__, __LINE__, #what); \
			exit(1);                                                       \
		}                                                                      \
	} while (0)

static unsigned long seen(const unsigned long *count)
{
	return __atomic_load_n(count, __ATOMIC_RELAXED);
}

static void one_more(unsigned long *count)
{
	__atomic_add_fetch(count, 1, __ATOMIC_RELAXED);
}

/* --- What is set -------------------------------------------------------------------------------- */

/* Of who sets it first, then which of its sets it is. */
#define SETTER_BITS 32u
#define PUSHED_AT_ONCE 64u

static unsigned set_bytes(uint64_t id)
{
	return REMOTE_SEAL_BYTES + (unsigned)(id * 2654435761u % TMEM_PAGE);
}

static uint8_t set_byte(uint64_t id, unsigned i)
{
	return (uint8_t)(id * 31 + i);
}

static bool is_value(uint64_t id, unsigned from, const uint8_t *value, unsigned bytes)
{
	for (unsigned i = 0; i < bytes; i++)
		if (value[i] != set_byte(id, from + i))
			return false;
	return true;
}

static bool set_one(uint64_t id)
{
	uint8_t frame[REMOTE_SET_MOST];
	unsigned bytes = set_bytes(id);

	frame_put(frame, FRAME_SET, id, NAME_BYTES + bytes);
	memset(frame + FRAME_HEAD_BYTES, 0, NAME_BYTES);
	for (unsigned i = 0; i < bytes; i++)
		frame[FRAME_HEAD_BYTES + NAME_BYTES + i] = set_byte(id, i);
	return courier_set(&courier, frame, FRAME_HEAD_BYTES + NAME_BYTES + bytes);
}

static void find_one(uint64_t id)
{
	uint8_t page[TMEM_PAGE];
	struct remote_want w = {.to = page};

	if (!courier_take_queued(&courier, id, REMOTE_SEAL_BYTES, &w))
		return;
	one_more(&found);
	if (w.status != FRAME_DONE || w.length + REMOTE_SEAL_BYTES != set_bytes(id) ||
	    !is_value(id, 0, w.head, REMOTE_SEAL_BYTES) || !is_value(id, REMOTE_SEAL_BYTES, page, w.length))
		one_more(&wrong);
}

static void *sets(void *arg)
{
	unsigned seed = *(unsigned *)arg;
	uint64_t id = (uint64_t)seed << SETTER_BITS;

	while (!__atomic_load_n(&is_over, __ATOMIC_RELAXED)) {
		if (set_one(id))
			id++;
		else
			usleep(100);
		find_one(id - 1 - (unsigned)rand_r(&seed) % PUSHED_AT_ONCE);
		if (id % PUSHED_AT_ONCE == 0)
			courier_push(&courier);
	}
	return NULL;
}

/* --- The other end ------------------------------------------------------------------------------ */

/* A page's value is its name, four times. */
static void answer(int fd, uint64_t id, unsigned index, const uint8_t *name, unsigned *seed)
{
	uint8_t out[FRAME_HEAD_BYTES + REMOTE_SEAL_BYTES + VALUE_BYTES] = {0};
	unsigned luck = (unsigned)rand_r(seed) % 2000;

	if (!luck)
		return;
	if (luck == 1)
		usleep(2 * seen(&timeout_ns) / 1000);
	frame_put(out, FRAME_VALUE, id, sizeof out - FRAME_HEAD_BYTES);
	out[offsetof(struct frame, index)] = (uint8_t)index;
	for (unsigned i = 0; i < VALUE_BYTES; i++)
		out[FRAME_HEAD_BYTES + REMOTE_SEAL_BYTES + i] = name[i % NAME_BYTES];
	send(fd, out, sizeof out, MSG_NOSIGNAL);
}

/* `last`: what came last of each who sets. */
static void take_set(int fd, const struct frame *f, const uint8_t *payload, uint64_t last[SETTERS + 1])
{
	uint8_t out[FRAME_HEAD_BYTES];
	uint64_t *before = &last[f->id >> SETTER_BITS];

	if (f->id <= *before || f->bytes != NAME_BYTES + set_bytes(f->id) ||
	    !is_value(f->id, 0, payload + NAME_BYTES, f->bytes - NAME_BYTES))
		one_more(&wrong);
	*before = f->id;
	one_more(&came);
	frame_put(out, FRAME_SET, f->id, 0);
	send(fd, out, sizeof out, MSG_NOSIGNAL);
}

static void *answers(void *arg)
{
	int fd = *(int *)arg;
	uint64_t last[SETTERS + 1] = {0};
	unsigned seed = (unsigned)fd;
	uint8_t in[1 << 16];
	size_t end = 0;
	ssize_t n;

	while ((n = recv(fd, in + end, sizeof in - end, 0)) > 0) {
		size_t at = 0;
		end += (size_t)n;
		while (end - at >= FRAME_HEAD_BYTES) {
			struct frame f = frame_at(in + at);
			if (end - at < FRAME_HEAD_BYTES + f.bytes)
				break;
			if (f.op == FRAME_SET)
				take_set(fd, &f, in + at + FRAME_HEAD_BYTES, last);
			for (unsigned i = 0; f.op == FRAME_GET && i < f.bytes / NAME_BYTES; i++)
				answer(fd, f.id, i, in + at + FRAME_HEAD_BYTES + i * NAME_BYTES, &seed);
			at += FRAME_HEAD_BYTES + f.bytes;
		}
		memmove(in, in + at, end - at);
		end -= at;
	}
	close(fd);
	return NULL;
}

/* --- Who asks ----------------------------------------------------------------------------------- */

static bool is_page(const uint8_t *page, const uint8_t *name)
{
	for (unsigned i = 0; i < VALUE_BYTES; i++)
		if (page[i] != name[i % NAME_BYTES])
			return false;
	return true;
}

static void ask(unsigned *seed)
{
	unsigned n = rand_r(seed) % 8 ? 1 : 1 + (unsigned)rand_r(seed) % REMOTE_WANTS_MOST, there = 0;
	struct remote_want wants[REMOTE_WANTS_MOST], *pointers[REMOTE_WANTS_MOST];
	uint8_t names[REMOTE_WANTS_MOST * NAME_BYTES];
	static __thread uint8_t pages[REMOTE_WANTS_MOST][REMOTE_VALUE_MOST];

	for (unsigned i = 0; i < n * NAME_BYTES; i++)
		names[i] = (uint8_t)rand_r(seed);
	for (unsigned i = 0; i < n; i++) {
		wants[i] = (struct remote_want){.to = pages[i]};
		pointers[i] = &wants[i];
	}
	unsigned answered = courier_ask(&courier, pointers, n, names, REMOTE_SEAL_BYTES, monotonic_ns() + seen(&timeout_ns));
	for (unsigned i = 0; i < n; i++)
		if (wants[i].status == FRAME_DONE && ++there && !is_page(pages[i], names + i * NAME_BYTES))
			one_more(&wrong);
	if (there != answered)
		one_more(&wrong);
	one_more(answered == n ? &whole : &part);
}

static void *asks(void *arg)
{
	unsigned seed = *(unsigned *)arg;

	while (!__atomic_load_n(&is_over, __ATOMIC_RELAXED)) {
		if (courier_is_there(&courier))
			ask(&seed);
		else
			usleep(100);
	}
	return NULL;
}

/* --- A host without memory -------------------------------------------------------------------- */

#define SHORT_US 300000u
#define TRIES_MOST 10ul        /* a thread that does not wait tries 100,000 times */

static bool has_no_memory;
static unsigned long tries;

ssize_t __real_send(int fd, const void *from, size_t bytes, int flags);
ssize_t __wrap_send(int fd, const void *from, size_t bytes, int flags);

ssize_t __wrap_send(int fd, const void *from, size_t bytes, int flags)
{
	if (!__atomic_load_n(&has_no_memory, __ATOMIC_RELAXED))
		return __real_send(fd, from, bytes, flags);
	one_more(&tries);
	errno = ENOBUFS;
	return -1;
}

static void *serves(void *arg)
{
	(void)arg;
	courier_serve(&courier);
	return NULL;
}

static void without_memory(void)
{
	uint8_t in[REMOTE_SET_MOST];
	pthread_t serving;
	int ends[2];

	CHECK(!socketpair(AF_UNIX, SOCK_STREAM, 0, ends));
	CHECK(!courier_connect(&courier, ends[0]));
	CHECK(!pthread_create(&serving, NULL, serves, NULL));
	__atomic_store_n(&has_no_memory, true, __ATOMIC_RELAXED);
	CHECK(set_one(1));
	courier_push(&courier);
	usleep(SHORT_US);
	courier_tick(&courier, coarse_ns());
	usleep(SHORT_US);
	CHECK(seen(&tries) >= 2 && seen(&tries) <= TRIES_MOST);
	CHECK(recv(ends[1], in, sizeof in, MSG_DONTWAIT) < 0);
	__atomic_store_n(&has_no_memory, false, __ATOMIC_RELAXED);
	courier_tick(&courier, coarse_ns());
	CHECK(recv(ends[1], in, sizeof in, 0) == FRAME_HEAD_BYTES + NAME_BYTES + set_bytes(1));
	courier_disconnect(&courier);
	pthread_join(serving, NULL);
	close(ends[1]);
}

/* --- One courier after the other ---------------------------------------------------------------- */

/* What has gone out is not found any more, whatever lies over it now. */
static void one_by_one(void)
{
	uint8_t page[TMEM_PAGE], in[REMOTE_SET_MOST];
	int ends[2];

	CHECK(!socketpair(AF_UNIX, SOCK_STREAM, 0, ends));
	CHECK(!courier_connect(&courier, ends[0]));
	for (uint64_t id = 1; id <= ONE_BY_ONE; id++) {
		struct remote_want w = {.to = page};
		CHECK(set_one(id));
		for (uint64_t gone = id > LOOKED_BACK ? id - LOOKED_BACK : 1; gone < id; gone++)
			CHECK(!courier_take_queued(&courier, gone, REMOTE_SEAL_BYTES, &w));
		find_one(id);
		CHECK(found == id && !wrong);
		/* It is sent without an answer to the one before. */
		courier_tick(&courier, UINT64_MAX);
		CHECK(recv(ends[1], in, sizeof in, 0) == FRAME_HEAD_BYTES + NAME_BYTES + set_bytes(id));
	}
	courier_disconnect(&courier);
	close(ends[1]);
	found = 0;
}

static void one_courier(void)
{
	unsigned long before = seen(&whole), missed = seen(&part);
	pthread_t answering, serving;
	int ends[2];

	CHECK(!socketpair(AF_UNIX, SOCK_STREAM, 0, ends));
	CHECK(!pthread_create(&answering, NULL, answers, &ends[1]));
	CHECK(!courier_connect(&courier, ends[0]));
	CHECK(!pthread_create(&serving, NULL, serves, NULL));
	while (seen(&whole) < before + ASKS) {
		usleep(1000);
		courier_tick(&courier, coarse_ns());
		/* On a busy machine, under a sanitizer, hardly an answer comes within 3 ms, and none of many pages. */
		if (seen(&part) > missed + MISSES_MOST) {
			__atomic_store_n(&timeout_ns, 2 * seen(&timeout_ns), __ATOMIC_RELAXED);
			missed = seen(&part);
		}
	}
	courier_disconnect(&courier);
	pthread_join(serving, NULL);
	pthread_join(answering, NULL);
}

int main(void)
{
	pthread_t threads[ASKERS + SETTERS];
	unsigned seeds[ASKERS + SETTERS];

	CHECK(!courier_init(&courier));
	without_memory();
	one_by_one();
	for (unsigned i = 0; i < ASKERS + SETTERS; i++) {
		seeds[i] = 1 + (i < ASKERS ? i : i - ASKERS);
		CHECK(!pthread_create(&threads[i], NULL, i < ASKERS ? asks : sets, &seeds[i]));
	}
	for (unsigned i = 0; i < COURIERS; i++)
		one_courier();
	__atomic_store_n(&is_over, true, __ATOMIC_RELAXED);
	for (unsigned i = 0; i < ASKERS + SETTERS; i++)
		pthread_join(threads[i], NULL);
	courier_destroy(&courier);
	printf("%lu asks were answered, %lu in part or not; %lu sets came, and %lu were found in the queue; %lu wrong\n",
	       whole, part, came, found, wrong);
	return wrong || !came || !found;
}
