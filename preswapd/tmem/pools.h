/* SPDX-License-Identifier: BSD-3-Clause */
/* The table of pools, in the arena and in memory, as a host's start and end see it. */
#ifndef PRESWAPD_POOLS_H
#define PRESWAPD_POOLS_H

#include "parts.h"

/* Whether an arena's table is undamaged. */
bool pools_fit(const struct arena *);
void pools_load(struct tmem_host *);
/* Recovery's end: pools whose pages do not outlive the process go too. */
void pools_drop_ephemeral(struct tmem_host *);

#endif
