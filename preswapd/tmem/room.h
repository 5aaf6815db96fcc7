/* SPDX-License-Identifier: BSD-3-Clause */
/* A slot for a put, filled, or a rejection. */
#ifndef PRESWAPD_ROOM_H
#define PRESWAPD_ROOM_H

#include "parts.h"

/* As in struct tmem_ops. */
int room_stage(struct tmem_host *, const struct tmem_handle *, const void *pages, unsigned n,
	       enum tmem_compress, unsigned flags, struct tmem_fresh *);
int room_build(struct tmem_host *, const struct tmem_handle *, const void *page,
	       enum tmem_compress, unsigned flags, struct tmem_fresh *);
int room_build_packed(struct tmem_host *, const struct tmem_handle *, const struct tmem_packed *,
		      unsigned flags, struct tmem_fresh *);

#endif
