/* SPDX-License-Identifier: BSD-3-Clause */
/* How long a page is: the guest's, the page store's and the disk file's. */
#ifndef PRESWAPD_PAGE_SIZE_H
#define PRESWAPD_PAGE_SIZE_H

#define PAGE_BYTES 4096u

#endif
