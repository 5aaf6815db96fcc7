/* SPDX-License-Identifier: BSD-3-Clause */
/* An arena file as bytes: made once with real pages, damaged for each input, written out. */
#ifndef PRESWAPD_FUZZ_IMAGE_H
#define PRESWAPD_FUZZ_IMAGE_H

#include "arena.h"

#define IMAGE_SLABS 36u
#define IMAGE_BYTES (IMAGE_SLABS * SLAB_BYTES)
#define FUZZ_LIMIT (2u << 20)          /* of the pool, in bytes */

/* What is wrong, and the end of the process. */
_Noreturn void fail(const char *what);
/* Where the file lies: in the directory that FUZZ_DIR names. */
const char *arena_path(void);

/* A page that names its handle and version; the rest follows from both, as dense as `noise`. */
void make_page(uint8_t *page, const struct tmem_handle *, uint32_t version);
/* Is it one of those, of this handle? */
bool names_itself(const uint8_t *page, const struct tmem_handle *);

/* The image, as it was made.  Its bytes may be changed through image_touch() only. */
void image_reset(void);
const struct arena *image(void);
/* The bytes of a range, which get memory in the file; NULL when it is out of the image. */
uint8_t *image_touch(uint64_t at, size_t bytes);
void image_punch(uint64_t from, uint64_t to);
bool image_front_is_whole(void);
/* Is a header where it was made, bit for bit? */
bool image_made(uint32_t ref);
/* Writes the file, cut or extended to `size` bytes, or as large as it was made with 0. */
void image_write(uint64_t size);

/* Signatures, over what the image says now; the salt is the superblock's. */
void sign_superblock(void);
void sign_pool(uint32_t id, uint8_t uuid, uint32_t flags);
void sign_class(uint32_t slab, unsigned class);
/* The header alone, or with the checksum that its payload needs. */
void sign_slot(uint32_t ref, bool payload_too);

#endif
