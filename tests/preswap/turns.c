/* SPDX-License-Identifier: BSD-3-Clause */
/* Whose turn a busy mark is, played out by threads that each take one; a program for tests.
 *
 * The marks are included, so that whoever waits is seen in their list.  Ends with 0 when all was
 * right; whoever calls it sets a time limit.
 */
#include "marks.c"

#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#define CHECK(what) check((what), #what)

struct taker {
	struct mark mark;
	bool alone, holds;
};

static struct marks marks;

static void check(bool right, const char *what)
{
	if (!right)
		fprintf(stderr, "not so: %s\n", what);
	if (!right)
		_Exit(1);
}

static void *take(void *arg)
{
	struct taker *t = arg;

	marks_take(&marks, &t->mark, 10, 8, t->alone);
	__atomic_store_n(&t->holds, true, __ATOMIC_RELEASE);
	return NULL;
}

static bool holds(const struct taker *t)
{
	return __atomic_load_n(&t->holds, __ATOMIC_ACQUIRE);
}

static bool is_in_list(const struct taker *t)
{
	bool found = false;

	pthread_mutex_lock(&marks.mutex);
	for (const struct mark *m = marks.all; m; m = m->next)
		found = found || m == &t->mark;
	pthread_mutex_unlock(&marks.mutex);
	return found;
}

/* A thread takes it, holds it until another drops it, and is seen before the next one comes. */
static void begin(struct taker *t, bool alone)
{
	pthread_t thread;

	*t = (struct taker){.alone = alone};
	CHECK(!pthread_create(&thread, NULL, take, t) && !pthread_detach(thread));
	while (!is_in_list(t))
		usleep(1000);
}

static void wait_until_it_holds(const struct taker *t, const char *who)
{
	for (int i = 0; i < 5000 && !holds(t); i++)
		usleep(1000);
	check(holds(t), who);
}

/* With a reader there at any time, one of them before the writer and one after. */
static void play_readers_that_keep_coming(void)
{
	struct taker first, writer, second;

	begin(&first, false);
	wait_until_it_holds(&first, "the first reader has its mark");
	begin(&writer, true);
	begin(&second, false);
	CHECK(!holds(&writer));
	marks_drop(&marks, &first.mark);
	wait_until_it_holds(&writer, "the writer has its mark before the reader that came later");
	CHECK(!holds(&second));
	marks_drop(&marks, &writer.mark);
	wait_until_it_holds(&second, "the second reader has its mark");
	marks_drop(&marks, &second.mark);
}

/* Nobody waits for a reader who is beside readers only. */
static void play_readers_share(void)
{
	struct taker first, second;

	begin(&first, false);
	begin(&second, false);
	wait_until_it_holds(&first, "the first reader has its mark");
	wait_until_it_holds(&second, "the second reader has it too");
	marks_drop(&marks, &first.mark);
	marks_drop(&marks, &second.mark);
}

int main(void)
{
	marks_init(&marks);
	play_readers_that_keep_coming();
	play_readers_share();
	marks_destroy(&marks);
	return 0;
}
