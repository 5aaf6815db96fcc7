/* SPDX-License-Identifier: BSD-3-Clause */
/* PENDING pages come from the host that the guest was on: the row "fetch" of docs/concurrency.md.
 *
 * The other host is asked without a lock or a mark, and in flight.  0 or a negative errno.
 */
#ifndef PRESWAPD_FETCH_H
#define PRESWAPD_FETCH_H

#include "device.h"

#define FETCH_PAGES DISK_RUN_PAGES

/* Reads pages that were PENDING a moment ago, FETCH_PAGES at most; kept only where the guest has come
 * before they were asked for: until then it may write them over there. */
int fetch_pages(struct device *, uint64_t first, uint64_t pages, uint8_t *to);
/* What was asked for after the guest has come takes the place of those that are PENDING still. */
int fetch_keep(struct device *, uint64_t first, uint64_t pages, const uint8_t *from);
/* A page of which a part is to be changed: it is not PENDING any more. */
int fetch_page(struct device *, uint64_t page);

#endif
