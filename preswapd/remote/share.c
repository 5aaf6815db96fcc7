/* SPDX-License-Identifier: BSD-3-Clause */
#include "share.h"

#include <errno.h>
#include <openssl/evp.h>
#include <string.h>
#include <unistd.h>

#include "clock.h"
#include "stores.h"

_Static_assert(SHARE_DIGEST_BYTES <= SEAL_OF_MOST, "keys are drawn from a digest");
_Static_assert(REMOTE_DEVICE_BYTES <= SHARE_DIGEST_BYTES, "its beginning stands for a device");

int share_init(struct share *s, struct remote *r, const uint8_t key[SEAL_KEY_BYTES],
	       const uint8_t digest[SHARE_DIGEST_BYTES], int sums_fd, uint64_t sums_at)
{
	s->remote = r;
	s->sums_fd = sums_fd;
	s->sums_at = sums_at;
	memcpy(s->digest, digest, SHARE_DIGEST_BYTES);
	return seal_init(&s->seal, key, "image", digest, SHARE_DIGEST_BYTES);
}

void share_destroy(struct share *s)
{
	seal_destroy(&s->seal);
	close(s->sums_fd);
}

int share_sum(const uint8_t *page, uint8_t to[SHARE_SUM_BYTES])
{
	uint8_t digest[EVP_MAX_MD_SIZE];

	if (EVP_Digest(page, TMEM_PAGE, digest, NULL, EVP_sha256(), NULL) != 1)
		return -ENOMEM;
	memcpy(to, digest, SHARE_SUM_BYTES);
	return 0;
}

/* As this host has read it.  -EBADMSG: another one has set something else; or that cannot be said. */
static int check_page(const struct share *s, const struct remote_want *w)
{
	uint8_t known[SHARE_SUM_BYTES], found[SHARE_SUM_BYTES];

	if (share_sum(w->to, found))
		return -ENOMEM;
	ssize_t n = pread(s->sums_fd, known, sizeof known, (off_t)(s->sums_at + w->page * SHARE_SUM_BYTES));
	return n == sizeof known && !memcmp(known, found, sizeof known) ? 0 : -EBADMSG;
}

/* What has the digest has one version. */
static struct seal_of of_page(const struct share *s, uint64_t page, const uint8_t *nonce)
{
	return (struct seal_of){s->digest, page, 0, nonce};
}

static bool takes(struct share *s)
{
	return tier_takes(s->remote);
}

static bool pass(struct share *s)
{
	return tier_pass(s->remote, 1);
}

static void push(struct share *s)
{
	courier_push(&s->remote->courier);
}

static bool set_packed(struct share *s, uint64_t page, const struct tmem_packed *packed)
{
	uint8_t frame[FRAME_HEAD_BYTES + NAME_BYTES + REMOTE_VALUE_MOST];
	uint8_t *name = frame + FRAME_HEAD_BYTES, *value = name + NAME_BYTES;
	uint8_t *nonce = value + REMOTE_SEAL_BYTES;
	uint32_t bytes = NAME_BYTES + REMOTE_HEAD_MOST + packed->length;
	struct seal_of of = of_page(s, page, nonce);

	frame_put(frame, FRAME_SET, 0, bytes);
	return !seal_names(&s->seal, &page, 1, name) && !seal_nonce(&s->seal, &of, packed, nonce) &&
	       !seal_page(&s->seal, &of, packed, value, value + REMOTE_HEAD_MOST) &&
	       courier_set(&s->remote->courier, frame, FRAME_HEAD_BYTES + bytes);
}

static bool set(struct share *s, uint64_t page, const uint8_t *from, enum tmem_compress compress,
		int (*pack)(enum tmem_compress, const void *page, uint8_t out[TMEM_PAGE], struct tmem_packed *))
{
	uint8_t room[TMEM_PAGE];
	struct tmem_packed packed;

	if (!courier_has_room(&s->remote->courier)) {
		count_up(&s->remote->courier.count.sets_dropped);
		return false;
	}
	return !pack(compress, from, room, &packed) && set_packed(s, page, &packed);
}

static void open_value(struct share *s, struct remote_want *w,
		       int (*unpack)(const struct tmem_packed *, void *page),
		       struct remote_counters *count)
{
	struct seal_of of = of_page(s, w->page, w->head + REMOTE_SEAL_BYTES);
	uint8_t plain[TMEM_PAGE];
	struct tmem_packed packed;
	int err = seal_open(&s->seal, &of, w->head, w->to, w->length, plain, &packed);

	if (!err)
		err = unpack(&packed, w->to);
	tier_opened(w, err ? err : check_page(s, w), count);
}

static unsigned get(struct share *s, struct remote_want *wants, unsigned n,
		    int (*unpack)(const struct tmem_packed *, void *page), struct remote_counters *count)
{
	struct remote_want *asked[REMOTE_WANTS_MOST];
	uint64_t pages[REMOTE_WANTS_MOST], begun = monotonic_ns();
	uint8_t names[REMOTE_WANTS_MOST * NAME_BYTES];
	unsigned there = 0;

	for (unsigned i = 0; i < n; i++) {
		asked[i] = &wants[i];
		pages[i] = wants[i].page;
	}
	if (seal_names(&s->seal, pages, n, names) ||
	    !tier_ask(s->remote, asked, n, names, REMOTE_HEAD_MOST)) {
		count_add(&count->away, n);
		return 0;
	}
	for (unsigned i = 0; i < n; i++) {
		if (tier_has_value(&wants[i], count))
			open_value(s, &wants[i], unpack, count);
		there += wants[i].is_there;
	}
	latency_note(&s->remote->gets, begun);
	return there;
}

const struct share_ops share_ops = {
	.takes = takes, .pass = pass, .set = set, .push = push, .get = get,
};
