/* SPDX-License-Identifier: BSD-3-Clause */
#include "blocks.h"

#include <xxhash.h>
#include <zstd.h>

/* Of 1 MiB at once: what level 3 saves beside it is not worth half of the rate. */
#define LEVEL 1

uint64_t blocks_sum(uint64_t before, const struct block_head *h, const void *payload)
{
	uint64_t sum = XXH3_64bits_withSeed(h, offsetof(struct block_head, sum), before);

	return XXH3_64bits_withSeed(payload, h->length, sum);
}

size_t blocks_bound(size_t raw)
{
	return ZSTD_compressBound(raw);
}

size_t blocks_pack(struct ZSTD_CCtx_s *ctx, void *to, size_t room, const void *from, size_t raw)
{
	size_t length = ZSTD_compressCCtx(ctx, to, room, from, raw, LEVEL);

	return ZSTD_isError(length) ? 0 : length;
}

int blocks_unpack(struct ZSTD_DCtx_s *ctx, void *to, size_t raw, const void *from, size_t length)
{
	return ZSTD_decompressDCtx(ctx, to, raw, from, length) == raw ? 0 : -1;
}
