/* SPDX-License-Identifier: BSD-3-Clause */
/* One page, smaller: same-filled, LZ4, zstd or raw.  Pure functions over a thread's own scratch. */
#ifndef PRESWAPD_CODEC_H
#define PRESWAPD_CODEC_H

#include "tmem.h"

/* Numbers of the arena format (3 bits): 5 and 6 are kept for a reference to another slot and for
 * a remote key. */
enum codec { CODEC_SAME = 1, CODEC_RAW = 2, CODEC_LZ4 = 3, CODEC_ZSTD = 4 };

struct scratch;

/* The calling thread's scratch, freed when it ends; NULL without memory. */
struct scratch *scratch_of_thread(void);

/* Whether the page repeats one word of 8 bytes. */
bool codec_same_filled(const void *page);
/* A compressed page longer than `most` is kept raw.  What it became points into `out`, or at the page
 * itself when raw or same-filled. */
void codec_pack(struct scratch *, enum tmem_compress, const void *page, unsigned most,
		uint8_t out[TMEM_PAGE], struct tmem_packed *);
/* 0; -EIO: the bytes are not such a page; -ENOMEM: no memory for zstd's own. */
int codec_unpack(struct scratch *, uint8_t codec, const void *bytes, unsigned length, void *page);

#endif
