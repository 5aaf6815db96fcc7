/* SPDX-License-Identifier: BSD-3-Clause */
/* Pages that are the same on every host: those of an image, known by its digest.
 *
 * Hosts need not trust each other for it: each has read the image itself, and has a sum of each page by
 * which it checks what comes.
 *
 * Its keys are drawn from one that the hosts have in common, and the digest; so a page of another image,
 * or of this one before it was changed, neither has the name nor opens.  A name is the page's number.  The nonce
 * is drawn from the page's number and what is sealed, and stands in the value: two hosts that seal the same
 * make the same value, and none serves two contents.
 */
#ifndef PRESWAPD_SHARE_H
#define PRESWAPD_SHARE_H

#include "tier.h"

#define SHARE_DIGEST_BYTES 32u
#define SHARE_SUM_BYTES 16u            /* the beginning of a page's SHA-256 */

struct share {
	struct remote *remote;
	struct seal seal;
	uint8_t digest[SHARE_DIGEST_BYTES];
	int sums_fd;
	uint64_t sums_at;              /* where in that file the first page's sum is */
};

extern const struct share_ops share_ops;

/* Of a page.  -ENOMEM. */
int share_sum(const uint8_t *page, uint8_t to[SHARE_SUM_BYTES]);

/* The descriptor is the share's in any case.  -ENOMEM: it is to be destroyed all the same. */
int share_init(struct share *, struct remote *, const uint8_t key[SEAL_KEY_BYTES],
	       const uint8_t digest[SHARE_DIGEST_BYTES], int sums_fd, uint64_t sums_at);
void share_destroy(struct share *);

#endif
