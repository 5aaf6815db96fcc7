/* SPDX-License-Identifier: BSD-3-Clause */
#include "marks.h"

void marks_init(struct marks *m)
{
	pthread_mutex_init(&m->mutex, NULL);
	pthread_cond_init(&m->dropped, NULL);
	m->all = NULL;
}

void marks_destroy(struct marks *m)
{
	pthread_mutex_destroy(&m->mutex);
	pthread_cond_destroy(&m->dropped);
}

/* Older marks only, held or waited for: readers that keep coming do not keep a writer out. */
static bool in_the_way(const struct marks *m, const struct mark *mine)
{
	for (const struct mark *o = m->all; o != mine; o = o->next)
		if (o->first < mine->end && mine->first < o->end && (o->alone || mine->alone))
			return true;
	return false;
}

void marks_take(struct marks *m, struct mark *mine, uint64_t first, uint64_t pages, bool alone)
{
	*mine = (struct mark){.first = first, .end = first + pages, .alone = alone};
	pthread_mutex_lock(&m->mutex);
	struct mark **end = &m->all;
	while (*end)
		end = &(*end)->next;
	*end = mine;
	while (in_the_way(m, mine))
		pthread_cond_wait(&m->dropped, &m->mutex);
	pthread_mutex_unlock(&m->mutex);
}

void marks_drop(struct marks *m, struct mark *mine)
{
	pthread_mutex_lock(&m->mutex);
	struct mark **at = &m->all;
	while (*at != mine)
		at = &(*at)->next;
	*at = mine->next;
	pthread_cond_broadcast(&m->dropped);
	pthread_mutex_unlock(&m->mutex);
}
