/* SPDX-License-Identifier: BSD-3-Clause */
/* What an arena must be read as: docs/arena-format.md and rule R2, once more and plainly. */
#ifndef PRESWAPD_FUZZ_EXPECTED_H
#define PRESWAPD_FUZZ_EXPECTED_H

#include "tmem.h"

enum fate { GONE, STORED, DAMAGED };

struct expected {
	struct tmem_handle handle;
	uint64_t seq, digest;          /* of the page */
	uint32_t ref;                  /* at the recovery */
	unsigned round;                /* the input that it belongs to */
	enum fate fate;
};

/* What the recovery of the image must find; reads no file. */
void expect_recovery(tmem_keep keep, struct tmem_recovery *found);
/* Bytes of the slots that it takes. */
uint64_t expected_slot_bytes(void);
struct expected *expected_of(const struct tmem_handle *);
/* The n-th of them, in the order that they became known; NULL behind the last. */
struct expected *expected_at(uint32_t n);
uint32_t expected_count(void);

#endif
