/* SPDX-License-Identifier: BSD-3-Clause */
/* A fuzz target: an arena that was damaged is opened, recovered and used.
 *
 * An input is a list of operations.  First come those on the file at rest: bytes, headers, class
 * words, pools, holes, with signatures of their own where the input asks for it, as a process that
 * went wrong could have left them.  What recovery must find follows from the file (expected.c).
 * Then come the operations of tmem, among them a restart and bits that flip under the running
 * host.  No page is ever read that was not put under its handle, or signed for it at rest.
 */
#include <errno.h>
#include <string.h>

#include "consistent.h"
#include "expected.h"
#include "image.h"

struct input {
	const uint8_t *at, *end;
};

static struct tmem_host *host;
static bool intact;                    /* no bit flipped under the running host */
static uint8_t version;

static uint32_t take(struct input *in, unsigned bytes)
{
	uint32_t value = 0;

	for (unsigned i = 0; i < bytes && in->at < in->end; i++)
		value |= (uint32_t)*in->at++ << 8 * i;
	return value;
}

static void check(bool holds, const char *what)
{
	if (!holds)
		fail(what);
}

/* --- The file at rest ------------------------------------------------------------------------- */

static void overwrite(struct input *in)
{
	uint32_t at = take(in, 3), n = take(in, 1) % 64 + 1;
	uint8_t *to = image_touch(at, n);

	for (uint32_t i = 0; to && i < n; i++)
		to[i] = (uint8_t)take(in, 1);
}

static void flip_at_rest(struct input *in)
{
	uint8_t *to = image_touch(take(in, 3), 1);
	uint8_t bits = (uint8_t)take(in, 1);

	if (to)
		*to ^= bits;
}

static void punch(struct input *in)
{
	uint32_t page = take(in, 2), n = take(in, 1);

	image_punch((uint64_t)page * TMEM_PAGE, (uint64_t)(page + n) * TMEM_PAGE);
}

static uint32_t take_ref(struct input *in)
{
	return ref_of(1 + take(in, 1) % (IMAGE_SLABS - 1), take(in, 2) % (SLAB_BYTES / 32 - 1));
}

static void sign(uint32_t ref, uint32_t how)
{
	if (how)
		sign_slot(ref, how > 1);
}

static void set_field(struct slot *s, uint32_t field, uint32_t value)
{
	switch (field) {
	case 0: s->object = value; break;
	case 1: s->object = (uint64_t)value << 32; break;
	case 2: s->seq = value; break;
	case 3: s->seq = ~(uint64_t)value; break;
	case 4: s->index = value; break;
	case 5: s->pool = (uint16_t)value; break;
	case 6: s->packing = (uint16_t)value; break;
	default: s->state = value; break;
	}
}

static void edit_slot(struct input *in)
{
	uint32_t ref = take_ref(in), how = take(in, 1);
	struct slot *s = (struct slot *)image_touch((uint64_t)ref * HEADER_BYTES, HEADER_BYTES);

	set_field(s, how % 8, take(in, how / 64 + 1));
	sign(ref, how / 8 % 3);
}

static void copy_slot(struct input *in)
{
	uint32_t from = take_ref(in), to = take_ref(in), how = take(in, 1);
	struct slot *s = (struct slot *)image_touch((uint64_t)to * HEADER_BYTES, HEADER_BYTES);

	*s = *arena_slot(image(), from);
	s->seq += how / 4 % 4;
	sign(to, how % 3);
}

static void set_class(struct input *in)
{
	uint32_t slab = 1 + take(in, 1) % (IMAGE_SLABS - 1), class = take(in, 1);

	sign_class(slab, class);
}

static void copy_slab(struct input *in)
{
	uint32_t from = 1 + take(in, 1) % (IMAGE_SLABS - 1), to = 1 + take(in, 1) % (IMAGE_SLABS - 1);
	int class = arena_class(image(), from);
	uint8_t *bytes = image_touch((uint64_t)to * SLAB_BYTES, SLAB_BYTES);

	if (from != to)
		memcpy(bytes, image()->base + (uint64_t)from * SLAB_BYTES, SLAB_BYTES);
	if (class > 0)
		sign_class(to, (unsigned)class);
}

static void edit_pool(struct input *in)
{
	uint32_t id = take(in, 1), flags = take(in, 2);

	sign_pool(id % POOLS_MAX, (uint8_t)(id / POOLS_MAX), flags);
}

static void edit_superblock(struct input *in)
{
	uint8_t *at = image_touch(take(in, 1) % 96, 1);

	*at = (uint8_t)take(in, 1);
	sign_superblock();
}

static void damage(struct input *in)
{
	static void (*const operations[])(struct input *) = {
		overwrite, flip_at_rest, punch, edit_slot, copy_slot, set_class, copy_slab, edit_pool,
		edit_superblock};
	const uint32_t n = sizeof operations / sizeof *operations;

	for (uint32_t op; in->at < in->end && (op = take(in, 1) % (n + 1)) < n;)
		operations[op](in);
}

/* --- Opening ---------------------------------------------------------------------------------- */

static bool keep_even_objects(void *ctx, const struct tmem_handle *handle)
{
	(void)ctx;
	return handle->object % 2 == 0;
}

/* Another size than the file was made with, or 0. */
static uint64_t choose_size(struct input *in)
{
	uint32_t how = take(in, 1);

	return how & 1 ? (uint64_t)take(in, 1) * (SLAB_BYTES / 2) : take(in, 3);
}

/* What is cut off the file is zeros in the image. */
static void cut_image(uint64_t size)
{
	image_punch((size + TMEM_PAGE - 1) / TMEM_PAGE * TMEM_PAGE, IMAGE_BYTES);
	if (size < IMAGE_BYTES && size % TMEM_PAGE)
		memset(image_touch(size, 1), 0, TMEM_PAGE - size % TMEM_PAGE);
}

static bool open_host(bool must)
{
	char why[200] = "";
	int err = tmem_open(arena_path(), &host, why, sizeof why);

	check(!err || !must, "a good arena is refused");
	check(!err || (err == -EINVAL && *why), "an arena is refused without a reason");
	if (!err) {
		check(strnlen(tmem_boot_id(host), 40) < 40, "a boot id without an end");
		tmem_set_limit(host, FUZZ_LIMIT);
	}
	return !err;
}

static bool start(uint64_t size, bool drop_odd)
{
	tmem_keep keep = drop_odd ? keep_even_objects : NULL;
	struct tmem_recovery expected, found;
	bool whole = image_front_is_whole() &&
		     (!size || (size >= 2 * SLAB_BYTES && size % SLAB_BYTES == 0));

	if (size)
		cut_image(size);
	image_write(size);
	if (!open_host(whole))
		return false;
	expect_recovery(keep, &expected);
	check(tmem_recover(host, keep, NULL, &found) == 0, "a recovery failed");
	check(memcmp(&expected, &found, sizeof found) == 0, "recovery counts other pages");
	check(expected_slot_bytes() == host->slabs.live_bytes, "recovery takes other slots");
	return true;
}

/* --- Operations ------------------------------------------------------------------------------- */

static bool may_be_evicted(const struct expected *e)
{
	return pool_is_ephemeral(&host->pools[e->handle.pool]);
}

static struct expected *take_page(struct input *in)
{
	static const uint32_t far[4] = {255, 256, 65536, UINT32_MAX};
	uint32_t which = take(in, 1);

	if (which < 192 && expected_count())
		return expected_at((which << 8 | take(in, 1)) % expected_count());
	struct tmem_handle handle = {.object = which % 8, .pool = which / 8 % 4};
	uint32_t index = take(in, 1);
	handle.index = index < 240 ? index : far[index % 4];
	return expected_of(&handle);
}

static void check_get(struct expected *e)
{
	uint8_t page[TMEM_PAGE];

	if (!tmem_pool_exists(host, e->handle.pool))
		return;
	int got = tmem_get(host, &e->handle, page);
	if (got == 1)
		check(e->fate == STORED && payload_digest(page, TMEM_PAGE) == e->digest,
		      "a page that nobody put");
	else if (got == 0)
		check(e->fate == GONE || may_be_evicted(e) || !intact, "a page is gone");
	else
		check(got == -EIO && (e->fate == DAMAGED || !intact), "a page cannot be read");
	if (got >= 0 && pool_gets_remove(&host->pools[e->handle.pool]))
		e->fate = GONE;
}

static void get(struct input *in)
{
	check_get(take_page(in));
}

static void put(struct input *in)
{
	struct expected *e = take_page(in);
	uint32_t how = take(in, 1);
	uint8_t page[TMEM_PAGE];

	if (!tmem_pool_exists(host, e->handle.pool))
		return;
	make_page(page, &e->handle, ++version);
	int done = tmem_put(host, &e->handle, page, (enum tmem_compress)(how % 3), how & 128);
	check(done == 0 || done == 1, "a put returns something else");
	if (done == 1) {
		e->fate = STORED;
		e->digest = payload_digest(page, TMEM_PAGE);
	} else if (!(how & 128)) {
		e->fate = GONE;
	}
}

static void flush(struct input *in)
{
	struct expected *e = take_page(in);

	if (!tmem_pool_exists(host, e->handle.pool))
		return;
	int found = tmem_flush(host, &e->handle);
	check(found == (e->fate != GONE) || may_be_evicted(e) || !intact, "a flush of another page");
	e->fate = GONE;
}

/* Pages of a pool, or of one object of it, that are there; forgets them. */
static int64_t forget(uint32_t pool, const uint64_t *object)
{
	int64_t pages = 0;

	for (uint32_t n = 0; n < expected_count(); n++) {
		struct expected *e = expected_at(n);
		if (e->handle.pool != pool || (object && e->handle.object != *object))
			continue;
		pages += e->fate != GONE;
		e->fate = GONE;
	}
	return pages;
}

static void flush_object(struct input *in)
{
	struct tmem_handle handle = take_page(in)->handle;

	if (!tmem_pool_exists(host, handle.pool))
		return;
	bool exact = intact && !pool_is_ephemeral(&host->pools[handle.pool]);
	int64_t dropped = tmem_flush_object(host, handle.pool, handle.object);
	check(dropped == forget(handle.pool, &handle.object) || !exact, "an object's pages");
}

static void destroy_pool(struct input *in)
{
	uint32_t pool = take(in, 1) % POOLS_MAX;
	bool exact = intact && !pool_is_ephemeral(&host->pools[pool]);
	int64_t dropped = tmem_destroy_pool(host, pool);

	if (!tmem_pool_exists(host, pool) && dropped != -ENOENT)
		check(dropped == forget(pool, NULL) || !exact, "a pool's pages");
}

static void new_pool(struct input *in)
{
	uint8_t uuid[16] = {1, 2, (uint8_t)take(in, 1)};
	int id = tmem_new_pool(host, uuid, take(in, 2));

	check(id < (int)POOLS_MAX, "a pool out of the table");
	check(id >= 0 || id == -EINVAL || id == -ENOSPC || id == -EEXIST, "a pool's error");
}

static void limit(struct input *in)
{
	uint32_t pool = take(in, 1), value = take(in, 1);

	if (pool < 128)
		tmem_set_max_pages(host, pool % POOLS_MAX, value < 255 ? value : UINT64_MAX);
	else if (pool < 192)
		tmem_freeze(host, pool % POOLS_MAX, value & 1);
	else
		tmem_set_limit(host, (uint64_t)value * FUZZ_LIMIT / 128);
}

static void maintain(struct input *in)
{
	tmem_maintain(host, take(in, 1) & 1);
}

/* In a slab's memory only: a hole that is touched would be memory that nobody counted. */
static void flip_while_running(struct input *in)
{
	uint32_t at = take(in, 3) % IMAGE_BYTES, bits = take(in, 1);
	const struct slab *slab = &host->slabs.slab[at / SLAB_BYTES];

	if (at < SLAB_BYTES || !slab->class || at % SLAB_BYTES >= slab->reserved)
		return;
	host->arena.base[at] ^= (uint8_t)bits;
	intact = intact && !bits;
}

/* Persistent pools are still there, others are not. */
static void check_pools(const struct pool *before)
{
	for (uint32_t id = 0; id < POOLS_MAX; id++)
		check(tmem_pool_exists(host, id) ==
			      (before[id].live && !pool_is_ephemeral(&before[id])),
		      "a restart changes the pools");
}

static void forget_lost_pools(void)
{
	for (uint32_t n = 0; n < expected_count(); n++) {
		struct expected *e = expected_at(n);
		if (!tmem_pool_exists(host, e->handle.pool))
			e->fate = GONE;
	}
}

static void restart(void)
{
	struct tmem_recovery found;
	struct pool before[POOLS_MAX];

	memcpy(before, host->pools, sizeof before);
	tmem_close(host);
	open_host(true);
	check(tmem_recover(host, NULL, NULL, &found) == 0, "a second recovery failed");
	check(!intact || (!found.losers && !found.damaged_slabs && !found.damaged_slots),
	      "a recovery or a stop left damage");
	check_pools(before);
	forget_lost_pools();
}

static void use(struct input *in)
{
	static void (*const operations[])(struct input *) = {
		put, put, get, flush, flush_object, new_pool, destroy_pool, limit, maintain,
		flip_while_running};
	const uint32_t n = sizeof operations / sizeof *operations;

	for (unsigned done = 1; in->at < in->end; done++) {
		uint32_t op = take(in, 1) % (n + 1);
		if (op < n)
			operations[op](in);
		else
			restart();
		if (done % 4 == 0)
			check_host(host, intact);
	}
}

static void get_all(void)
{
	for (uint32_t n = 0; n < expected_count(); n++)
		check_get(expected_at(n));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct input in = {data, data + size};
	uint32_t options = take(&in, 1);

	image_reset();
	intact = true;
	version = 0;
	uint64_t file_size = options & 1 ? choose_size(&in) : 0;
	damage(&in);
	if (start(file_size, options & 2)) {
		check_host(host, intact);
		if (options & 16)
			restart();
		if (options & 8)
			tmem_maintain(host, true);
		if (options & 4)
			get_all();
		use(&in);
		get_all();
		tmem_maintain(host, true);
		check_host(host, intact);
		tmem_close(host);
	}
	return 0;
}
