/* SPDX-License-Identifier: BSD-3-Clause */
#include "recompress.h"

#include "clock.h"

/* One call tries pages for so long, at 20 us each, or looks at so many, for 0.2 ms. */
#define TRY_NS 1000000ull
#define LOOKS_AT_ONCE 65536u

/* When the page was put, got or read from disk last, or up to a second before that. */
static double touched_at(const struct device *d, uint64_t page, uint64_t now_ns)
{
	uint16_t number = epochs_number(&d->touched[page]);

	return (double)now_ns / 1e9 - epochs_seconds(d->epochs, number, now_ns);
}

static bool is_due(const struct device *d, const struct recompress *r, uint64_t page,
		   uint64_t now_ns)
{
	if (device_state(d, page) != TMEM)
		return false;
	double at = touched_at(d, page, now_ns);
	return r->since <= at && at < r->before;
}

static void try_page(struct device *d, struct recompress *r, uint64_t page)
{
	struct tmem_handle handle = device_handle(d, page);
	int done = d->tmem->recompress(d->host, &handle, r->compress);

	r->recompressed += done > 0;
	r->no_room += done < 0;
}

void recompress_pages(struct device *d, struct recompress *r)
{
	uint64_t looks = d->pages - r->next < LOOKS_AT_ONCE ? d->pages - r->next : LOOKS_AT_ONCE;
	uint64_t began = monotonic_ns(), now = began;

	for (; looks-- && now - began < TRY_NS; r->next++) {
		if (!is_due(d, r, r->next, began))
			continue;
		try_page(d, r, r->next);
		now = monotonic_ns();
	}
}
