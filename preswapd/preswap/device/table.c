/* SPDX-License-Identifier: BSD-3-Clause */
#include "table.h"

#include <errno.h>
#include <stddef.h>
#include <string.h>
#include <xxhash.h>

#include "page_size.h"
#include "stores.h"

#define HEAD_MAGIC 0x656c626174707773ull       /* "swptable" */

static const uint64_t state_words[] = {
	[TABLE_FREE] = 0,
	[TABLE_CREATING] = 0x474e495441455243ull,      /* "CREATING" */
	[TABLE_SERVED] = 0x2020444556524553ull,        /* "SERVED  " */
	[TABLE_REMOVING] = 0x474e49564f4d4552ull,      /* "REMOVING" */
	[TABLE_ADOPTING] = 0x474e4954504f4441ull,      /* "ADOPTING" */
};

struct head {
	uint64_t magic;
	uint64_t next_type;            /* and its complement above it: one store, self-checked */
};

static uint64_t counter_word(uint32_t n)
{
	return (uint64_t)~n << 32 | n;
}

static struct table_entry *entry_of(const void *table, uint32_t i)
{
	return (struct table_entry *)table + i;
}

static uint64_t check_of(const struct table_entry *e)
{
	return XXH3_64bits(&e->size, offsetof(struct table_entry, check) -
					     offsetof(struct table_entry, size));
}

void table_init(void *table)
{
	struct head *h = table;

	store_release(&h->next_type, counter_word(1));
	store_release(&h->magic, HEAD_MAGIC);
}

/* A kill between the two stores of table_init() leaves the counter alone. */
bool table_is_blank(const void *table)
{
	static const uint8_t zeros[PAGE_BYTES - sizeof(struct head)];
	const struct head *h = table;

	return h->magic == 0 && (h->next_type == 0 || h->next_type == counter_word(1)) &&
	       memcmp(h + 1, zeros, sizeof zeros) == 0;
}

bool table_head_fits(const void *table)
{
	const struct head *h = table;

	return h->magic == HEAD_MAGIC && h->next_type == counter_word((uint32_t)h->next_type);
}

uint32_t table_draw_type(void *table)
{
	struct head *h = table;
	uint32_t type = (uint32_t)h->next_type;

	store_release(&h->next_type, counter_word(type + 1));
	return type;
}

int table_read(const void *table, uint32_t i, struct table_entry *to, enum table_state *state)
{
	const struct table_entry *e = entry_of(table, i);

	*to = *e;
	for (unsigned s = TABLE_FREE; s <= TABLE_ADOPTING; s++) {
		if (e->state != state_words[s])
			continue;
		*state = (enum table_state)s;
		if (s == TABLE_FREE || e->check == check_of(e))
			return 0;
	}
	return -EINVAL;
}

void table_write(void *table, uint32_t i, const struct table_entry *from, enum table_state state)
{
	struct table_entry *e = entry_of(table, i);

	memcpy((uint8_t *)e + sizeof e->state, (const uint8_t *)from + sizeof from->state,
	       sizeof *e - sizeof e->state);
	e->check = check_of(e);
	table_set_state(table, i, state);
}

void table_set_state(void *table, uint32_t i, enum table_state state)
{
	store_release(&entry_of(table, i)->state, state_words[state]);
}

void table_lift_quarantine(void *table, uint32_t i)
{
	store_release(&entry_of(table, i)->quarantined, 0);
}

void table_set_token(void *table, uint32_t i, uint64_t token)
{
	store_release(&entry_of(table, i)->token, token);
}
