/* SPDX-License-Identifier: BSD-3-Clause */
#include "index.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "stores.h"

static void *count_alloc(struct index *x, size_t bytes)
{
	void *p = headroom_take_needed(x->headroom, bytes) ? calloc(1, bytes) : NULL;

	if (p)
		count_add(&x->bytes, bytes);
	return p;
}

static void count_free(struct index *x, void *p, size_t bytes)
{
	if (p)
		count_sub(&x->bytes, bytes);
	free(p);
}

void index_init(struct index *x, struct headroom *headroom)
{
	x->headroom = headroom;
	x->bytes = 0;
	for (unsigned i = 0; i < STRIPES; i++) {
		pthread_mutex_init(&x->stripes[i].mutex, NULL);
		x->stripes[i].objects = NULL;
	}
}

static void object_free(struct index *x, struct object *o)
{
	for (uint32_t i = 0; i < o->n_branches; i++) {
		struct branch *b = o->branches[i];
		for (uint32_t j = 0; b && j < BRANCH_LEAVES; j++)
			count_free(x, b->leaves[j], sizeof(struct leaf));
		count_free(x, b, sizeof *b);
	}
	count_free(x, o->branches, o->n_branches * sizeof *o->branches);
	count_free(x, o, sizeof *o);
}

void index_destroy(struct index *x)
{
	for (unsigned i = 0; i < STRIPES; i++) {
		struct object *o = x->stripes[i].objects;
		while (o) {
			struct object *next = o->next;
			object_free(x, o);
			o = next;
		}
		pthread_mutex_destroy(&x->stripes[i].mutex);
	}
}

static struct object **find_object(struct index *x, const struct tmem_handle *h)
{
	struct object **at = &stripe_of(x, h)->objects;

	while (*at && ((*at)->id != h->object || (*at)->pool != h->pool))
		at = &(*at)->next;
	return at;
}

static struct branch *branch_of(const struct object *o, uint32_t index)
{
	uint32_t n = index / BRANCH_REFS;

	return o && n < o->n_branches ? o->branches[n] : NULL;
}

static struct leaf **leaf_of(struct branch *b, uint32_t index)
{
	return &b->leaves[index / LEAF_REFS % BRANCH_LEAVES];
}

uint32_t index_get(struct index *x, const struct tmem_handle *h)
{
	struct branch *b = branch_of(*find_object(x, h), h->index);
	struct leaf *l = b ? *leaf_of(b, h->index) : NULL;

	return l ? l->refs[h->index % LEAF_REFS] : 0;
}

static uint64_t got_bit(const struct tmem_handle *h)
{
	return 1ull << h->index % 64;
}

static uint64_t *got_word(struct leaf *l, const struct tmem_handle *h)
{
	return &l->got[h->index % LEAF_REFS / 64];
}

void index_note_get(struct index *x, const struct tmem_handle *h)
{
	*got_word(*leaf_of(branch_of(*find_object(x, h), h->index), h->index), h) |= got_bit(h);
}

bool index_was_got(struct index *x, const struct tmem_handle *h)
{
	uint64_t *word =
		got_word(*leaf_of(branch_of(*find_object(x, h), h->index), h->index), h);
	bool got = *word & got_bit(h);

	*word &= ~got_bit(h);
	return got;
}

static struct object *make_object(struct index *x, const struct tmem_handle *h)
{
	struct object **at = find_object(x, h);

	if (!*at && (*at = count_alloc(x, sizeof **at))) {
		(*at)->id = h->object;
		(*at)->pool = h->pool;
	}
	return *at;
}

static struct branch *make_branch(struct index *x, struct object *o, uint32_t n)
{
	if (n >= o->n_branches) {
		uint32_t want = o->n_branches ? o->n_branches : 1;
		while (want <= n)
			want *= 2;
		struct branch **more = count_alloc(x, want * sizeof *more);
		if (!more)
			return NULL;
		if (o->n_branches)
			memcpy(more, o->branches, o->n_branches * sizeof *more);
		count_free(x, o->branches, o->n_branches * sizeof *more);
		o->branches = more;
		o->n_branches = want;
	}
	if (!o->branches[n])
		o->branches[n] = count_alloc(x, sizeof(struct branch));
	return o->branches[n];
}

int index_prepare(struct index *x, const struct tmem_handle *h)
{
	struct object *o = make_object(x, h);
	struct branch *b = o ? make_branch(x, o, h->index / BRANCH_REFS) : NULL;

	if (!b)
		return -ENOMEM;
	struct leaf **l = leaf_of(b, h->index);
	if (!*l && (*l = count_alloc(x, sizeof **l)))
		b->used++;
	return *l ? 0 : -ENOMEM;
}

void index_set(struct index *x, const struct tmem_handle *h, uint32_t ref)
{
	struct object *o = *find_object(x, h);
	struct leaf *l = *leaf_of(branch_of(o, h->index), h->index);
	uint32_t *at = &l->refs[h->index % LEAF_REFS];

	if (!*at) {
		l->used++;
		o->pages++;
	}
	*at = ref;
}

static void free_empty(struct index *x, struct object **at, uint32_t index)
{
	struct object *o = *at;
	uint32_t n = index / BRANCH_REFS;
	struct leaf **l = leaf_of(o->branches[n], index);

	if (!(*l)->used) {
		count_free(x, *l, sizeof **l);
		*l = NULL;
		o->branches[n]->used--;
	}
	if (o->reserved)
		return;
	if (!o->branches[n]->used) {
		count_free(x, o->branches[n], sizeof(struct branch));
		o->branches[n] = NULL;
	}
	if (!o->pages) {
		*at = o->next;
		object_free(x, o);
	}
}

uint32_t index_clear(struct index *x, const struct tmem_handle *h)
{
	struct object **at = find_object(x, h);
	struct branch *b = branch_of(*at, h->index);
	struct leaf *l = b ? *leaf_of(b, h->index) : NULL;
	uint32_t old = l ? l->refs[h->index % LEAF_REFS] : 0;

	if (old) {
		l->refs[h->index % LEAF_REFS] = 0;
		*got_word(l, h) &= ~got_bit(h);
		l->used--;
		(*at)->pages--;
		free_empty(x, at, h->index);
	}
	return old;
}

int index_reserve(struct index *x, const struct tmem_handle *h, uint32_t last)
{
	struct object *o = make_object(x, h);

	if (!o)
		return -ENOMEM;
	o->reserved = true;
	for (uint32_t n = last / BRANCH_REFS + 1; n-- > 0;)
		if (!make_branch(x, o, n))
			return -ENOMEM;
	return 0;
}

void index_forget(struct index *x, const struct tmem_handle *h)
{
	struct object **at = find_object(x, h), *o = *at;

	if (!o)
		return;
	o->reserved = false;
	if (!o->pages) {
		*at = o->next;
		object_free(x, o);
	}
}

bool index_next(struct index *x, struct tmem_handle *h, uint32_t *ref)
{
	struct object *o = *find_object(x, h);
	uint64_t i = h->index;

	while (o && i / BRANCH_REFS < o->n_branches) {
		struct branch *b = o->branches[i / BRANCH_REFS];
		struct leaf *l = b ? *leaf_of(b, (uint32_t)i) : NULL;
		if (!b) {
			i = (i / BRANCH_REFS + 1) * BRANCH_REFS;
		} else if (!l) {
			i = (i / LEAF_REFS + 1) * LEAF_REFS;
		} else if (!l->refs[i % LEAF_REFS]) {
			i++;
		} else {
			h->index = (uint32_t)i;
			*ref = l->refs[i % LEAF_REFS];
			return true;
		}
	}
	return false;
}
