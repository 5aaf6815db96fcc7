/* SPDX-License-Identifier: BSD-3-Clause */
/* The blocks of a save (docs/save-format.md): what is in them, compressed, and a chain of checksums.
 *
 * Each block's checksum begins with that of the block before it.  So that of the last one covers all
 * of them, and a block that is right stands in its place.
 */
#ifndef PRESWAPD_BLOCKS_H
#define PRESWAPD_BLOCKS_H

#include <stddef.h>
#include <stdint.h>

/* As it stands in the file, little-endian. */
struct block_head {
	uint32_t kind;
	uint32_t length;               /* of the payload behind it */
	uint64_t first;                /* page */
	uint64_t raw;                  /* length of the payload once it is unpacked; 0: it is not packed */
	uint64_t sum;
};

uint64_t blocks_sum(uint64_t before, const struct block_head *, const void *payload);

struct ZSTD_CCtx_s;
struct ZSTD_DCtx_s;

/* Of the longest payload that so many bytes are packed to. */
size_t blocks_bound(size_t raw);
/* The length, or 0: no memory. */
size_t blocks_pack(struct ZSTD_CCtx_s *, void *to, size_t room, const void *from, size_t raw);
/* 0, or -1: it is not what so many bytes were packed to. */
int blocks_unpack(struct ZSTD_DCtx_s *, void *to, size_t raw, const void *from, size_t length);

#endif
