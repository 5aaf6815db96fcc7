/* SPDX-License-Identifier: BSD-3-Clause */
/* Each thread's own aligned buffer for transfers: O_DIRECT wants it aligned, and nbdkit's are not. */
#ifndef PRESWAPD_BUFFER_H
#define PRESWAPD_BUFFER_H

#include <stdint.h>

#include "page_size.h"

#define BUFFER_PAGES 256u              /* 1 MiB */

/* BUFFER_PAGES pages, kept until the thread ends; NULL without memory. */
uint8_t *buffer_of_thread(void);
/* Bytes of all threads' buffers; each native module has buffers of its own. */
uint64_t transfer_buffers_held(void);

#endif
