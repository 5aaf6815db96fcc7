/* SPDX-License-Identifier: BSD-3-Clause */
#include "codec.h"

#if !__has_include(<lz4.h>)
#error "preswapd needs the LZ4 library and its headers: on Debian or Ubuntu, apt-get install liblz4-dev libzstd-dev libxxhash-dev"
#endif
#if !__has_include(<zstd.h>)
#error "preswapd needs the zstd library and its headers: on Debian or Ubuntu, apt-get install liblz4-dev libzstd-dev libxxhash-dev"
#endif
#include <errno.h>
#include <lz4.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <zstd.h>

/* Level 3 is zram's default for zstd: 873 bytes a page on real pages, against 889 at level 1. */
#define ZSTD_LEVEL 3

struct scratch {
	ZSTD_CCtx *cctx;               /* made at the first use: most devices use one codec */
	ZSTD_DCtx *dctx;
	void *lz4;
};

static pthread_key_t scratch_key;
static pthread_once_t scratch_once = PTHREAD_ONCE_INIT;
static int no_key;
static _Thread_local struct scratch *scratch_mine;

static void scratch_free(void *p)
{
	struct scratch *s = p;

	scratch_mine = NULL;
	ZSTD_freeCCtx(s->cctx);
	ZSTD_freeDCtx(s->dctx);
	free(s->lz4);
	free(s);
}

static void scratch_make_key(void)
{
	no_key = pthread_key_create(&scratch_key, scratch_free);
}

struct scratch *scratch_of_thread(void)
{
	if (scratch_mine)
		return scratch_mine;
	pthread_once(&scratch_once, scratch_make_key);
	struct scratch *s = no_key ? NULL : calloc(1, sizeof *s);
	if (!s)
		return NULL;
	s->lz4 = malloc((size_t)LZ4_sizeofState());
	if (!s->lz4 || pthread_setspecific(scratch_key, s)) {
		free(s->lz4);
		free(s);
		return NULL;
	}
	return scratch_mine = s;
}

bool codec_same_filled(const void *page)
{
	return memcmp(page, (const uint8_t *)page + 8, TMEM_PAGE - 8) == 0;
}

/* Without the content's size a page is 5 bytes shorter, and the arena has a checksum of its own. */
static ZSTD_CCtx *zstd_cctx(struct scratch *s)
{
	if (!s->cctx && (s->cctx = ZSTD_createCCtx())) {
		ZSTD_CCtx_setParameter(s->cctx, ZSTD_c_compressionLevel, ZSTD_LEVEL);
		ZSTD_CCtx_setParameter(s->cctx, ZSTD_c_contentSizeFlag, 0);
		ZSTD_CCtx_setParameter(s->cctx, ZSTD_c_checksumFlag, 0);
		ZSTD_CCtx_setParameter(s->cctx, ZSTD_c_dictIDFlag, 0);
	}
	return s->cctx;
}

void codec_pack(struct scratch *s, enum tmem_compress compress, const void *page, unsigned most,
		uint8_t out[TMEM_PAGE], struct tmem_packed *to)
{
	size_t n = 0;

	if (codec_same_filled(page)) {
		*to = (struct tmem_packed){page, 8, CODEC_SAME};
		return;
	}
	if (compress == TMEM_LZ4) {
		n = (size_t)LZ4_compress_fast_extState(s->lz4, page, (char *)out, TMEM_PAGE,
						       (int)most, 1);
		*to = (struct tmem_packed){out, (uint16_t)n, CODEC_LZ4};
	} else if (compress == TMEM_ZSTD && zstd_cctx(s)) {
		n = ZSTD_compress2(s->cctx, out, most, page, TMEM_PAGE);
		if (ZSTD_isError(n))
			n = 0;
		*to = (struct tmem_packed){out, (uint16_t)n, CODEC_ZSTD};
	}
	if (n == 0)
		*to = (struct tmem_packed){page, TMEM_PAGE, CODEC_RAW};
}

int codec_unpack(struct scratch *s, uint8_t codec, const void *bytes, unsigned length, void *page)
{
	size_t n = 0;
	uint64_t value;

	switch (codec) {
	case CODEC_SAME:
		if (length != sizeof value)
			return -EIO;
		memcpy(&value, bytes, sizeof value);
		if (value == 0)
			memset(page, 0, TMEM_PAGE);
		else
			for (size_t i = 0; i < TMEM_PAGE; i += sizeof value)
				memcpy((uint8_t *)page + i, &value, sizeof value);
		return 0;
	case CODEC_RAW:
		if (length != TMEM_PAGE)
			return -EIO;
		memcpy(page, bytes, TMEM_PAGE);
		return 0;
	case CODEC_LZ4:
		n = (size_t)LZ4_decompress_safe(bytes, page, (int)length, TMEM_PAGE);
		return n == TMEM_PAGE ? 0 : -EIO;
	case CODEC_ZSTD:
		if (!s->dctx && !(s->dctx = ZSTD_createDCtx()))
			return -ENOMEM;
		n = ZSTD_decompressDCtx(s->dctx, page, TMEM_PAGE, bytes, length);
		return n == TMEM_PAGE ? 0 : -EIO;
	default:
		return -EIO;
	}
}
