/* SPDX-License-Identifier: BSD-3-Clause */
#include "shared.h"

_Static_assert(SHARED_MOST <= REMOTE_WANTS_MOST, "all are asked for at once");

static struct share *share_of(struct image *i)
{
	return __atomic_load_n(&i->share, __ATOMIC_ACQUIRE);
}

uint64_t shared_get(struct image *i, uint64_t first, uint32_t pages, uint8_t *buffer, bool *is_late)
{
	struct remote_want wants[SHARED_MOST];
	struct share *s = share_of(i);
	uint64_t there = 0;

	if (!s || *is_late)
		return 0;
	for (uint32_t n = 0; n < pages; n++)
		wants[n] = (struct remote_want){.page = first + n, .to = buffer + n * PAGE_BYTES};
	i->share_ops->get(s, wants, pages, i->tmem->unpack, &i->remote);
	for (uint32_t n = 0; n < pages; n++) {
		there |= (uint64_t)wants[n].is_there << n;
		*is_late |= wants[n].is_late;
	}
	return there;
}

bool shared_takes(struct image *i)
{
	struct share *s = share_of(i);

	return s && i->share_ops->takes(s);
}

void shared_set(struct image *i, uint64_t page, const uint8_t *from)
{
	if (i->share_ops->set(share_of(i), page, from, i->compress, i->tmem->pack))
		count_up(&i->count.remote_sets);
	else
		count_up(&i->count.remote_sets_dropped);
}

void shared_pass(struct image *i)
{
	struct share *s = share_of(i);

	if (s && i->share_ops->pass(s))
		count_up(&i->count.remote_sets_dropped);
}

void shared_push(struct image *i)
{
	i->share_ops->push(share_of(i));
}
