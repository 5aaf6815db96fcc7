/* SPDX-License-Identifier: BSD-3-Clause */
/* Which object and index a page of a swap device has in its pool, and back.
 *
 * Object = type << 4 | page & 15, index = page >> 4, as in preswap (SWIZ_BITS = 4): neighbouring
 * pages are in different objects, so that each device has sixteen locks and not one.
 */
#ifndef PRESWAPD_SWIZZLE_H
#define PRESWAPD_SWIZZLE_H

#include <stdint.h>

#define SWIZZLE_BITS 4u
#define SWIZZLE_OBJECTS (1u << SWIZZLE_BITS)   /* of each device */

static inline uint64_t swizzle_object(uint32_t type, uint64_t page)
{
	return (uint64_t)type << SWIZZLE_BITS | page % SWIZZLE_OBJECTS;
}

static inline uint32_t swizzle_index(uint64_t page)
{
	return (uint32_t)(page >> SWIZZLE_BITS);
}

static inline uint64_t swizzle_page(uint64_t object, uint32_t index)
{
	return (uint64_t)index << SWIZZLE_BITS | object % SWIZZLE_OBJECTS;
}

/* The swap type of the device that an object belongs to. */
static inline uint64_t swizzle_type(uint64_t object)
{
	return object >> SWIZZLE_BITS;
}

#endif
