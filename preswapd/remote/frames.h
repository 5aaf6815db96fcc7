/* SPDX-License-Identifier: BSD-3-Clause */
/* What the server and its courier say to each other: a head of 16 bytes, little-endian, and a payload.
 *
 *     server -> courier                          courier -> server
 *     'g' names (32 at most)                     'v' for each: the same id, which name, a status, the value
 *     's' a name and a value                     's' the same id, a status
 *     'd' names; no answer
 *                                                'j' JSON: what it knows of the store
 */
#ifndef PRESWAPD_FRAMES_H
#define PRESWAPD_FRAMES_H

#include <endian.h>
#include <stdint.h>
#include <string.h>

#define FRAME_HEAD_BYTES 16u
#define FRAME_MOST (1u << 20)          /* of a payload */
#define FRAME_NAMES 32u                /* of a get */
#define NAME_BYTES 16u

enum frame_op {
	FRAME_GET = 'g', FRAME_SET = 's', FRAME_DELETE = 'd',
	FRAME_VALUE = 'v', FRAME_STATUS = 'j'
};

/* AWAY: the node that has it is known not to answer, and was not asked. */
enum frame_status { FRAME_DONE, FRAME_MISS, FRAME_AWAY, FRAME_ERROR };

struct frame {
	uint32_t bytes;
	uint8_t op, status, index, zero;
	uint64_t id;
};

static inline void frame_put(uint8_t to[FRAME_HEAD_BYTES], enum frame_op op, uint64_t id, uint32_t bytes)
{
	struct frame f = {.bytes = htole32(bytes), .op = (uint8_t)op, .id = htole64(id)};

	memcpy(to, &f, FRAME_HEAD_BYTES);
}

static inline struct frame frame_at(const uint8_t from[FRAME_HEAD_BYTES])
{
	struct frame f;

	memcpy(&f, from, FRAME_HEAD_BYTES);
	f.bytes = le32toh(f.bytes);
	f.id = le64toh(f.id);
	return f;
}

#endif
