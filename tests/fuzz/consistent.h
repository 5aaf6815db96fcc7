/* SPDX-License-Identifier: BSD-3-Clause */
/* Do the parts of a host agree with each other?  fail() where they do not. */
#ifndef PRESWAPD_FUZZ_CONSISTENT_H
#define PRESWAPD_FUZZ_CONSISTENT_H

#include "parts.h"

/* `intact`: nobody wrote to the arena behind the host's back. */
void check_host(struct tmem_host *, bool intact);

#endif
