/* SPDX-License-Identifier: BSD-3-Clause */
/* The devices of an instance, in the arena's table: name, swap type, size, and how far its making
 * or removal got.  A type is drawn once from the table's counter and never used again: two devices
 * that swap places in a configuration must not swap memory. */
#ifndef PRESWAPD_TABLE_H
#define PRESWAPD_TABLE_H

#include <stdbool.h>
#include <stdint.h>

#define TABLE_NAME_BYTES 16u

/* ADOPTING: the disk file and sidecar were there before, and stay if it is not finished. */
enum table_state {
	TABLE_FREE, TABLE_CREATING, TABLE_SERVED, TABLE_REMOVING, TABLE_ADOPTING
};

struct table_entry {
	uint64_t state;                /* a word for each state; the last store at birth */
	uint64_t size;
	uint32_t type;
	uint32_t spare_word;
	char name[TABLE_NAME_BYTES];
	uint64_t check;                /* over size to name */
	uint64_t quarantined;          /* of an older release, which served none of its pages then */
	uint64_t token;                /* what its disk file bears too; 0: none yet; changes */
};
_Static_assert(sizeof(struct table_entry) == 64, "the entry is part of the arena's format");

/* Entry 0 is the table's head; devices are entries 1 and up.  -EINVAL: damaged. */
void table_init(void *table);
/* Whether nothing was ever written to its first page. */
bool table_is_blank(const void *table);
bool table_head_fits(const void *table);
uint32_t table_draw_type(void *table);
int table_read(const void *table, uint32_t i, struct table_entry *to, enum table_state *state);
/* The entry is free; its state becomes CREATING or ADOPTING. */
void table_write(void *table, uint32_t i, const struct table_entry *, enum table_state);
void table_set_state(void *table, uint32_t i, enum table_state);
void table_lift_quarantine(void *table, uint32_t i);
void table_set_token(void *table, uint32_t i, uint64_t token);

#endif
