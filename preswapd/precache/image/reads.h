/* SPDX-License-Identifier: BSD-3-Clause */
/* Reads of an image: what is cached, and the rest from the file, which is cached then.
 *
 * A page is filled under its busy mark, held alone: who wants the same page meanwhile waits, and finds
 * it; and what a write has replaced cannot come back.
 */
#ifndef PRESWAPD_READS_H
#define PRESWAPD_READS_H

#include "image.h"

/* In flight, within the image.  `ahead`: so many pages behind the end are cached too, where one before
 * them had to be read. */
int reads_read(struct image *, uint8_t *to, uint64_t count, uint64_t offset, uint32_t ahead);

#endif
