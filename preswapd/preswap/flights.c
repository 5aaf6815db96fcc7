#include "flights.h"

#include <time.h>

uint64_t flights_now(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC_COARSE, &t);
	return (uint64_t)t.tv_sec * 1000000000ull + (uint64_t)t.tv_nsec;
}

void flights_init(struct flights *f)
{
	*f = (struct flights){.epoch = 1};
	f->all.next = f->all.prev = &f->all;
	pthread_mutex_init(&f->mutex, NULL);
	pthread_cond_init(&f->landed, NULL);
}

void flights_destroy(struct flights *f)
{
	pthread_mutex_destroy(&f->mutex);
	pthread_cond_destroy(&f->landed);
}

uint64_t flights_connect(struct flights *f)
{
	pthread_mutex_lock(&f->mutex);
	uint64_t epoch = ++f->epoch;
	f->connections++;
	pthread_mutex_unlock(&f->mutex);
	return epoch;
}

void flights_disconnect(struct flights *f)
{
	pthread_mutex_lock(&f->mutex);
	f->connections--;
	pthread_mutex_unlock(&f->mutex);
}

bool flights_begin(struct flights *f, struct flight *mine)
{
	pthread_mutex_lock(&f->mutex);
	bool open = !f->closed;
	if (open) {
		mine->epoch = f->epoch;
		mine->next = &f->all;
		mine->prev = f->all.prev;
		mine->prev->next = f->all.prev = mine;
		f->last_io = flights_now();
	}
	pthread_mutex_unlock(&f->mutex);
	return open;
}

void flights_end(struct flights *f, struct flight *mine)
{
	pthread_mutex_lock(&f->mutex);
	bool oldest = f->all.next == mine;
	mine->prev->next = mine->next;
	mine->next->prev = mine->prev;
	if (oldest)
		pthread_cond_broadcast(&f->landed);
	pthread_mutex_unlock(&f->mutex);
}

static bool older(const struct flights *f, uint64_t epoch)
{
	return f->all.next != &f->all && f->all.next->epoch < epoch;
}

bool flights_older(struct flights *f, uint64_t epoch)
{
	pthread_mutex_lock(&f->mutex);
	bool found = older(f, epoch);
	pthread_mutex_unlock(&f->mutex);
	return found;
}

void flights_wait_older(struct flights *f, uint64_t epoch)
{
	pthread_mutex_lock(&f->mutex);
	while (older(f, epoch))
		pthread_cond_wait(&f->landed, &f->mutex);
	pthread_mutex_unlock(&f->mutex);
}

void flights_close(struct flights *f)
{
	pthread_mutex_lock(&f->mutex);
	f->closed = true;
	while (f->all.next != &f->all)
		pthread_cond_wait(&f->landed, &f->mutex);
	pthread_mutex_unlock(&f->mutex);
}
