/* SPDX-License-Identifier: BSD-3-Clause */
#include "tier.h"

#include <errno.h>

#include "clock.h"
#include "stores.h"

#define IN_VAIN_MOST 3u
/* Gets in a row whose nodes are all away: where one is there, it has a page of so many. */
#define AWAY_MOST 32u
/* For how many timeouts nothing is asked, and for how long at most: a hiccup costs little, and so does it to ask
 * a store that stays away. */
#define OPEN_TIMEOUTS 20u
#define OPEN_MOST_NS 10000000000ull
/* Deleted in a second, where nothing is set: a courier has other things to do. */
#define DELETED_MOST 2048u

_Static_assert(REMOTE_SET_MOST == FRAME_HEAD_BYTES + NAME_BYTES + REMOTE_VALUE_MOST, "a set's frame has its room");
_Static_assert(SEAL_NAME_BYTES == NAME_BYTES, "what is named is asked for");
_Static_assert(REMOTE_VALUE_MOST < 1u << REMOTE_LENGTH_BITS, "a word has a value's length");

int tier_init(struct remote *r, const uint8_t key[SEAL_KEY_BYTES],
		const uint8_t session[SEAL_SESSION_BYTES])
{
	int err = courier_init(&r->courier);

	if (!err)
		err = versions_init(&r->versions);
	if (!err)
		err = seal_init(&r->seal, key, "session", session, SEAL_SESSION_BYTES);
	r->is_enabled = true;
	return err;
}

void tier_destroy(struct remote *r)
{
	courier_destroy(&r->courier);
	versions_destroy(&r->versions);
	seal_destroy(&r->seal);
}

void tier_set_timeout(struct remote *r, uint64_t ns)
{
	__atomic_store_n(&r->timeout, ns, __ATOMIC_RELAXED);
}

void tier_set_enabled(struct remote *r, bool on)
{
	__atomic_store_n(&r->is_enabled, on, __ATOMIC_RELAXED);
}

/* --- The breaker -------------------------------------------------------------------------------- */

bool tier_is_open(const struct remote *r)
{
	return count_of(&r->open_until);
}

static bool is_on(const struct remote *r)
{
	return __atomic_load_n(&r->is_enabled, __ATOMIC_RELAXED) && courier_is_there(&r->courier);
}

/* Whether it may be tried again: its time is over, or the courier has something new to say of the store. */
static bool is_over(const struct remote *r, uint64_t until, uint64_t now)
{
	return now >= until || count_of(&r->courier.count.heard) != count_of(&r->heard);
}

static void note_heard(struct remote *r)
{
	__atomic_store_n(&r->heard, count_of(&r->courier.count.heard), __ATOMIC_RELAXED);
}

/* While it is open one get is let through each time that it may be tried again. */
static bool may_ask(struct remote *r, uint64_t now)
{
	uint64_t until = count_of(&r->open_until);

	if (!is_on(r) || (until && !is_over(r, until, now)))
		return false;
	if (!until)
		return true;
	bool is_ours = __atomic_compare_exchange_n(&r->open_until, &until, now + OPEN_MOST_NS, false,
						   __ATOMIC_RELAXED, __ATOMIC_RELAXED);
	if (is_ours)
		note_heard(r);
	return is_ours;
}

static void close_breaker(struct remote *r)
{
	if (count_of(&r->in_vain))
		__atomic_store_n(&r->in_vain, 0, __ATOMIC_RELAXED);
	if (count_of(&r->away))
		__atomic_store_n(&r->away, 0, __ATOMIC_RELAXED);
	if (count_of(&r->open_until))
		__atomic_store_n(&r->open_until, 0, __ATOMIC_RELAXED);
}

/* The third one, and each that was let through then. */
static uint64_t open_for(const struct remote *r, uint64_t in_vain)
{
	uint64_t ns = OPEN_TIMEOUTS * count_of(&r->timeout);

	while (in_vain-- > IN_VAIN_MOST && ns < OPEN_MOST_NS)
		ns *= 2;
	return ns < OPEN_MOST_NS ? ns : OPEN_MOST_NS;
}

/* Gets that waited at the same time were in vain once: many threads meet one hiccup together. */
static void note_in_vain(struct remote *r, uint64_t begun)
{
	uint64_t now = monotonic_ns(), before = count_of(&r->in_vain_at);

	if (begun < before || !__atomic_compare_exchange_n(&r->in_vain_at, &before, now, false,
							    __ATOMIC_RELAXED, __ATOMIC_RELAXED))
		return;
	uint64_t n = __atomic_add_fetch(&r->in_vain, 1, __ATOMIC_RELAXED);
	if (n < IN_VAIN_MOST)
		return;
	note_heard(r);
	__atomic_store_n(&r->open_until, now + open_for(r, n), __ATOMIC_RELAXED);
}

/* The courier says at once that nobody is there, but to ask it takes time of processors that guests need: whether
 * it has said so once too often. */
static bool note_away(struct remote *r)
{
	return __atomic_add_fetch(&r->away, 1, __ATOMIC_RELAXED) > AWAY_MOST || tier_is_open(r);
}

/* Of `n`, `away` of those that were answered are at no node. */
static void note_ask(struct remote *r, uint64_t begun, unsigned n, unsigned answered, unsigned away)
{
	if (answered > away)
		close_breaker(r);
	else if (away < n || note_away(r))
		note_in_vain(r, begun);
}

int tier_connect(struct remote *r, int fd)
{
	int err = courier_connect(&r->courier, fd);

	if (!err)
		close_breaker(r);
	return err;
}

/* --- Deleting ----------------------------------------------------------------------------------- */

/* Some of what is to be deleted: how many.  By one thread at a time. */
static unsigned delete_names(struct remote *r)
{
	uint64_t versions[COURIER_DELETED], first;
	uint8_t names[COURIER_DELETED * NAME_BYTES];
	unsigned n = 0, some;

	if (!courier_has_room(&r->courier))
		return 0;
	while (n < COURIER_DELETED && versions_next_gone(&r->versions, &first, &some)) {
		for (; some && n < COURIER_DELETED; some--)
			versions[n++] = first++;
		if (some)
			versions_return_gone(&r->versions, first, some);
	}
	if (!n || seal_names(&r->seal, versions, n, names) || !courier_delete(&r->courier, names, n))
		return 0;
	return n;
}

static void delete_some(struct remote *r, unsigned most)
{
	if (__atomic_exchange_n(&r->is_deleting, true, __ATOMIC_ACQUIRE))
		return;
	for (unsigned n = 0, some = 1; some && n < most; n += some)
		some = delete_names(r);
	__atomic_store_n(&r->is_deleting, false, __ATOMIC_RELEASE);
}

/* --- Setting ------------------------------------------------------------------------------------ */

/* Also when an open breaker may be tried again: the get that is let through then is one of a page that the
 * store should have, and there may be none left. */
bool tier_takes(struct remote *r)
{
	uint64_t until = count_of(&r->open_until);

	return is_on(r) && (!until || is_over(r, until, coarse_ns()));
}

bool tier_pass(struct remote *r, uint64_t pages)
{
	bool is_enabled = __atomic_load_n(&r->is_enabled, __ATOMIC_RELAXED);

	if (is_enabled)
		count_add(&r->courier.count.sets_dropped, pages);
	return is_enabled;
}

static void pass(struct remote *r, uint64_t pages)
{
	tier_pass(r, pages);
}

static void seal(struct remote *r, const uint8_t device[REMOTE_DEVICE_BYTES], uint64_t page,
		 const struct tmem_packed *packed, struct remote_set *to)
{
	to->word = 0;
	if (!courier_has_room(&r->courier)) {
		count_up(&r->courier.count.sets_dropped);
		return;
	}
	struct seal_of of = {device, page, versions_draw(&r->versions, coarse_ns()), NULL};
	uint8_t *name = to->frame + FRAME_HEAD_BYTES, *value = name + NAME_BYTES;
	uint32_t bytes = REMOTE_SEAL_BYTES + packed->length;

	frame_put(to->frame, FRAME_SET, of.version, NAME_BYTES + bytes);
	to->length = FRAME_HEAD_BYTES + NAME_BYTES + bytes;
	if (!seal_names(&r->seal, &of.version, 1, name) &&
	    !seal_page(&r->seal, &of, packed, value, value + REMOTE_SEAL_BYTES))
		to->word = version_word(of.version, bytes);
}

static bool set(struct remote *r, const struct remote_set *s)
{
	if (!s->word || !versions_note(&r->versions, s->word))
		return false;
	if (courier_set(&r->courier, s->frame, s->length))
		return true;
	versions_forget(&r->versions, s->word, false);
	return false;
}

/* About as many go as came. */
static void push(struct remote *r)
{
	delete_some(r, COURIER_DELETED);
	courier_push(&r->courier);
}

static void forget(struct remote *r, uint64_t word)
{
	versions_forget(&r->versions, word, true);
}

/* --- Getting ------------------------------------------------------------------------------------ */

bool tier_ask(struct remote *r, struct remote_want **wants, unsigned n, const uint8_t *names,
		unsigned head)
{
	uint64_t begun = monotonic_ns();

	if (!may_ask(r, begun))
		return false;
	unsigned away = 0, answered =
		courier_ask(&r->courier, wants, n, names, head, begun + count_of(&r->timeout));
	for (unsigned i = 0; i < n; i++)
		away += wants[i]->status == FRAME_AWAY;
	note_ask(r, begun, n, answered, away);
	return true;
}

bool tier_has_value(struct remote_want *w, struct remote_counters *count)
{
	switch (w->status) {
	case FRAME_DONE:
		return true;
	case FRAME_MISS:
		count_up(&count->misses);
		w->is_gone = true;
		break;
	case WANT_BROKEN:
		count_up(&count->wrong);
		w->is_gone = true;
		break;
	case WANT_OPEN:
		count_up(&count->late);
		w->is_late = true;
		break;
	default:
		count_up(&count->away);
	}
	return false;
}

void tier_opened(struct remote_want *w, int err, struct remote_counters *count)
{
	w->is_there = !err;
	w->is_gone = err && err != -ENOMEM;
	count_up(w->is_there ? &count->reads : w->is_gone ? &count->wrong : &count->away);
}

static void open_value(struct remote *r, const uint8_t *device, struct remote_want *w,
		       int (*unpack)(const struct tmem_packed *, void *page))
{
	struct seal_of of = {device, w->page, version_of(w->word), NULL};
	uint8_t plain[TMEM_PAGE];
	struct tmem_packed packed;
	int err = seal_open(&r->seal, &of, w->head, w->to, w->length, plain, &packed);

	tier_opened(w, err ? err : unpack(&packed, w->to), &r->count);
}

/* Those whose versions are still some. */
static unsigned choose(struct remote *r, struct remote_want *wants, unsigned n,
		       struct remote_want **chosen, uint64_t *versions)
{
	unsigned m = 0;

	for (unsigned i = 0; i < n; i++) {
		wants[i].is_there = false;
		wants[i].is_gone = !version_is_alive(&r->versions, wants[i].word);
		if (wants[i].is_gone)
			continue;
		versions[m] = version_of(wants[i].word);
		chosen[m++] = &wants[i];
	}
	return m;
}

/* Those that are still on their way to the store are here: the others are left. */
static unsigned take_queued(struct remote *r, const uint8_t *device, struct remote_want **wants, uint64_t *versions,
			    unsigned n, int (*unpack)(const struct tmem_packed *, void *page))
{
	unsigned left = 0;

	for (unsigned i = 0; i < n; i++) {
		if (is_on(r) && courier_take_queued(&r->courier, versions[i], REMOTE_SEAL_BYTES, wants[i])) {
			open_value(r, device, wants[i], unpack);
			continue;
		}
		wants[left] = wants[i];
		versions[left++] = versions[i];
	}
	return left;
}

/* Of those that were asked for. */
static void open_values(struct remote *r, const uint8_t *device, struct remote_want **wants, unsigned n,
			int (*unpack)(const struct tmem_packed *, void *page))
{
	for (unsigned i = 0; i < n; i++)
		if (tier_has_value(wants[i], &r->count))
			open_value(r, device, wants[i], unpack);
}

static unsigned get(struct remote *r, const uint8_t device[REMOTE_DEVICE_BYTES], struct remote_want *wants,
		    unsigned n, int (*unpack)(const struct tmem_packed *, void *page))
{
	struct remote_want *chosen[REMOTE_WANTS_MOST];
	uint64_t versions[REMOTE_WANTS_MOST], begun = monotonic_ns();
	uint8_t names[REMOTE_WANTS_MOST * NAME_BYTES];
	unsigned m = choose(r, wants, n, chosen, versions), there = 0;

	m = take_queued(r, device, chosen, versions, m, unpack);
	if (m && !seal_names(&r->seal, versions, m, names) &&
	    tier_ask(r, chosen, m, names, REMOTE_SEAL_BYTES)) {
		open_values(r, device, chosen, m, unpack);
		latency_note(&r->gets, begun);
	} else {
		count_add(&r->count.away, m);
	}
	for (unsigned i = 0; i < n; i++)
		there += wants[i].is_there;
	return there;
}

void tier_tick(struct remote *r)
{
	versions_tick(&r->versions, monotonic_ns());
	if (is_on(r))
		delete_some(r, DELETED_MOST);
	/* Also while it is off: what is queued goes, and then its memory. */
	courier_tick(&r->courier, coarse_ns());
}

const struct remote_ops remote_ops = {
	.takes = tier_takes, .pass = pass, .seal = seal, .set = set, .push = push, .forget = forget, .get = get,
};
