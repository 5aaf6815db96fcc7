/* SPDX-License-Identifier: BSD-3-Clause */
/* The disk file of a device: what tmem did not take.  Whole pages only. */
#ifndef PRESWAPD_DISK_H
#define PRESWAPD_DISK_H

#include <stdbool.h>
#include <stdint.h>

#include "buffer.h"
#include "syncs.h"

#define DISK_RUN_PAGES BUFFER_PAGES    /* one transfer */

struct disk {
	int fd;
	uint64_t size;                 /* bytes */
	bool is_file;                  /* not a block device, which keeps its size */
	bool no_punch;                 /* the file system has no holes */
	bool is_direct;                /* opened past the page cache */
	struct syncs syncs;
	bool sync_failed;              /* atomic: of this process nobody believes a saved map any more */
};

void disk_init(struct disk *);
void disk_destroy(struct disk *);
void disk_attach(struct disk *, int fd, uint64_t size);
/* Somebody truncated the file underneath: reads behind its end and all writes are -EIO.  A write
 * would make it longer again, with zeros where other pages were. */
bool disk_is_cut_off(const struct disk *, uint64_t *size);
/* Gives the file its size back. */
int disk_lengthen(const struct disk *);
/* 0 or a negative errno. */
int disk_read(const struct disk *, uint64_t first, uint32_t pages, uint8_t *buffer);
int disk_write(const struct disk *, uint64_t first, uint32_t pages, const uint8_t *buffer);
int disk_sync(struct disk *);
/* Its times too, as a saved map wants them. */
int disk_sync_all(struct disk *);
int disk_punch(struct disk *, uint64_t first, uint64_t pages);
/* At most DISK_RUN_PAGES pages: they read as zeros afterwards, also where nothing can be punched;
 * unless that must be fast: -EOPNOTSUPP. */
int disk_clear(struct disk *, uint64_t first, uint32_t pages, bool fast);
/* The first run of pages at or behind `*first` that has blocks: `*first` and `*pages` become that
 * run's, or the end of the file and 0 where there is no more.  A block device has none to give back:
 * it has no holes. */
int disk_next_written(const struct disk *, uint64_t *first, uint64_t *pages);

#endif
