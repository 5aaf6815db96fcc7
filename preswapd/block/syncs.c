/* SPDX-License-Identifier: BSD-3-Clause */
#include "syncs.h"

#include <errno.h>
#include <unistd.h>

void syncs_init(struct syncs *s)
{
	*s = (struct syncs){0};
	pthread_mutex_init(&s->mutex, NULL);
}

void syncs_destroy(struct syncs *s)
{
	pthread_mutex_destroy(&s->mutex);
}

static int sync_now(struct syncs *s, int fd, bool is_direct, int (*sync)(int))
{
	uint64_t mine = __atomic_add_fetch(&s->begun, 1, __ATOMIC_SEQ_CST);
	int err = s->error;

	while (!err && sync(fd))
		err = errno == EINTR ? 0 : errno;
	if (!err)
		s->done = mine;
	else if (!is_direct)
		s->error = err;
	return -err;
}

int syncs_data(struct syncs *s, int fd, bool is_direct)
{
	/* What was written before this call lies in each sync that begins after it. */
	uint64_t next = __atomic_load_n(&s->begun, __ATOMIC_SEQ_CST) + 1;

	pthread_mutex_lock(&s->mutex);
	int err = s->done >= next ? 0 : sync_now(s, fd, is_direct, fdatasync);
	pthread_mutex_unlock(&s->mutex);
	return err;
}

int syncs_all(struct syncs *s, int fd, bool is_direct)
{
	pthread_mutex_lock(&s->mutex);
	int err = sync_now(s, fd, is_direct, fsync);
	pthread_mutex_unlock(&s->mutex);
	return err;
}
