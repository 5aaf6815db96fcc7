/* SPDX-License-Identifier: BSD-3-Clause */
#define _GNU_SOURCE
#include "courier.h"

#include <errno.h>
#include <linux/futex.h>
#include <linux/sockios.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "clock.h"
#include "stores.h"

/* So much is sent in one call of what is queued. */
#define PUSH_MOST 65536u
/* So long after a get the next one is expected. */
#define QUIET_NS 100000000ull
/* A courier answers each set, and has limits of its own. */
#define PATIENCE_NS 10000000000ull

_Static_assert(COURIER_REST_BYTES >= REMOTE_SET_MOST, "a part of a set may have gone out");
_Static_assert(COURIER_REST_BYTES >= FRAME_HEAD_BYTES + COURIER_DELETED * NAME_BYTES, "or of names to be deleted");

/* What who waits is told.  After ASK_ENDED nobody looks at its ask, and it needs no mutex. */
enum ask_told { ASK_WAITS, ASK_READS, ASK_ENDED };

/* Who waits for pages.  Frame i of it has the number first_id + i, and FRAME_NAMES of them. */
struct ask {
	struct ask *next;
	uint64_t first_id;
	struct remote_want **wants;
	unsigned n, left, head;
	bool reads;                    /* for all; else it sleeps */
	bool is_ended;                 /* it is about to be told so */
	uint32_t told;                 /* atomic, a futex */
};

static uint64_t frames_of(const struct ask *a)
{
	return (a->n + FRAME_NAMES - 1) / FRAME_NAMES;
}

int courier_init(struct courier *c)
{
	memset(c, 0, sizeof *c);
	c->fd = c->epoll = -1;
	pthread_mutex_init(&c->mutex, NULL);
	pthread_cond_init(&c->left, NULL);
	c->in = malloc(FRAME_HEAD_BYTES + FRAME_MOST);
	int err = queue_init(&c->queue);
	return c->in ? err : -ENOMEM;
}

void courier_destroy(struct courier *c)
{
	courier_disconnect(c);
	queue_destroy(&c->queue);
	free(c->in);
	free(c->status);
	pthread_cond_destroy(&c->left);
	pthread_mutex_destroy(&c->mutex);
}

/* A value, as it came. */
static void take_page(struct remote_want *w, const uint8_t *value, size_t bytes, unsigned head)
{
	if (bytes < head || bytes > head + TMEM_PAGE) {
		w->status = WANT_BROKEN;
		return;
	}
	w->status = FRAME_DONE;
	w->length = (uint16_t)(bytes - head);
	memcpy(w->head, value, head);
	memcpy(w->to, value + head, w->length);
}

bool courier_has_room(const struct courier *c)
{
	return queue_has_room(&c->queue);
}

bool courier_take_queued(struct courier *c, uint64_t id, unsigned head, struct remote_want *w)
{
	const uint8_t *set = queue_hold(&c->queue, id);

	if (set)
		take_page(w, set + FRAME_HEAD_BYTES + NAME_BYTES, frame_at(set).bytes - NAME_BYTES, head);
	queue_let_go(&c->queue);
	return set;
}

/* --- How much goes out -------------------------------------------------------------------------- */

static unsigned most_unanswered(const struct courier *c)
{
	bool is_asked = c->asks || coarse_ns() < c->asked + QUIET_NS;

	return is_asked ? COURIER_UNANSWERED : COURIER_UNANSWERED_ALONE;
}

/* Not for each answer: what goes out together costs all who carry it less. */
static bool may_push(const struct courier *c)
{
	return queue_used(&c->queue) && c->unanswered <= most_unanswered(c) / 2;
}

/* --- Who waits ---------------------------------------------------------------------------------- */

static void tell(struct ask *a, uint32_t what)
{
	__atomic_store_n(&a->told, what, __ATOMIC_RELEASE);
	/* By now it may be gone, and its place another's: who sleeps there looks again. */
	syscall(SYS_futex, &a->told, FUTEX_WAKE_PRIVATE, 1, NULL, NULL, 0);
}

static uint32_t told(const struct ask *a)
{
	return __atomic_load_n(&a->told, __ATOMIC_ACQUIRE);
}

/* False: the time is over.  `until` 0: it never is. */
static bool sleep_until_told(struct ask *a, uint64_t until)
{
	struct timespec t = {.tv_sec = (time_t)(until / 1000000000u), .tv_nsec = (long)(until % 1000000000u)};
	long n = 0;

	while (told(a) == ASK_WAITS && !(n && errno == ETIMEDOUT))
		n = syscall(SYS_futex, &a->told, FUTEX_WAIT_BITSET_PRIVATE, ASK_WAITS, until ? &t : NULL, NULL,
			    FUTEX_BITSET_MATCH_ANY);
	return told(a) != ASK_WAITS;
}

/* Whoever was chosen is told without the mutex, which it might want. */
static void unlock(struct courier *c)
{
	struct ask *ended = c->ended, *heir = c->heir;

	c->ended = c->heir = NULL;
	pthread_mutex_unlock(&c->mutex);
	if (heir)
		tell(heir, ASK_READS);
	for (struct ask *a = ended; a; a = ended) {
		ended = a->next;
		tell(a, ASK_ENDED);
	}
}

static void unlink_ask(struct courier *c, struct ask *a)
{
	struct ask **at = &c->asks;

	while (*at != a)
		at = &(*at)->next;
	*at = a->next;
	if (!--c->users)
		pthread_cond_broadcast(&c->left);
}

/* Who reads finds it out by itself. */
static void end_ask(struct courier *c, struct ask *a)
{
	if (a->reads)
		return;
	unlink_ask(c, a);
	a->is_ended = true;
	a->next = c->ended;
	c->ended = a;
}

/* --- Who reads ---------------------------------------------------------------------------------- */

/* The serving thread is woken by what comes, unless another thread reads that, and by room for what did not
 * go out: whoever reads sleeps already when the socket becomes full. */
static void arm(struct courier *c)
{
	struct epoll_event e = {.events = EPOLLONESHOT};

	if (!c->is_read)
		e.events |= EPOLLIN;
	if (!c->is_short && (c->is_full || (!c->is_read && may_push(c))))
		e.events |= EPOLLOUT;
	if (c->is_served)
		epoll_ctl(c->epoll, EPOLL_CTL_MOD, c->fd, &e);
}

/* Nobody reads: whoever waits does next, or else the serving thread. */
static void pass_on(struct courier *c)
{
	if (c->is_read)
		return;
	if (c->asks && c->is_there) {
		c->heir = c->asks;
		c->is_read = c->heir->reads = true;
	} else {
		arm(c);
	}
}

static void give_up(struct courier *c, const char *why)
{
	if (!c->is_there)
		return;
	__atomic_store_n(&c->is_there, false, __ATOMIC_RELAXED);
	strncpy(c->why, why, COURIER_WHY_BYTES - 1);
	shutdown(c->fd, SHUT_RDWR);
	for (struct ask *a = c->asks, *next; a; a = next) {
		next = a->next;
		end_ask(c, a);
	}
	pass_on(c);
}

/* --- Out ---------------------------------------------------------------------------------------- */

/* What is queued goes on once a part of the socket is free. */
static void wait_for_room(struct courier *c)
{
	if (c->is_full)
		return;
	c->is_full = true;
	arm(c);
}

/* Three quarters of the socket; the rest is for gets. */
static size_t room_for_sets(const struct courier *c)
{
	size_t most = c->socket_bytes / 4 * 3;
	int unread = 0;

	ioctl(c->fd, SIOCOUTQ, &unread);
	return (size_t)unread < most ? most - (size_t)unread : 0;
}

/* What the socket takes now; none where it is full, or broken. */
static size_t send_some(struct courier *c, const uint8_t *from, size_t bytes)
{
	ssize_t n;

	do
		n = send(c->fd, from, bytes, MSG_DONTWAIT | MSG_NOSIGNAL);
	while (n < 0 && errno == EINTR);
	/* A socket without memory says that it has room: it is tried again with the next tick. */
	c->is_short = n < 0 && errno == ENOBUFS;
	if (n < 0 && errno != EAGAIN && errno != ENOBUFS)
		give_up(c, strerror(errno));
	if (n < (ssize_t)bytes)
		wait_for_room(c);
	return n < 0 ? 0 : (size_t)n;
}

/* All or nothing, as far as others see.  What is left of a part goes out before anything else. */
static bool send_whole(struct courier *c, const uint8_t *from, size_t bytes)
{
	if (!c->is_there || c->rest_at < c->rest_end)
		return false;
	size_t n = send_some(c, from, bytes);
	if (n && n < bytes) {
		c->rest_at = 0;
		c->rest_end = bytes - n;
		memcpy(c->rest, from + n, bytes - n);
	}
	return n;
}

/* What has gone out leaves the queue, and what is left of the last frame goes out before anything else. */
static void queued_went(struct courier *c, const uint8_t *from, size_t sent)
{
	unsigned sets;
	size_t bytes = queue_begun(&c->queue, sent, &sets);

	if (bytes > sent) {
		c->rest_at = 0;
		c->rest_end = bytes - sent;
		memcpy(c->rest, from + sent, bytes - sent);
	}
	c->unanswered += sets;
	queue_leave(&c->queue, bytes);
}

/* One send of what is queued.  False: nothing went, or may go now. */
static bool push_some(struct courier *c)
{
	unsigned most = most_unanswered(c);

	if (!c->is_there || c->is_full || !queue_used(&c->queue) || c->unanswered >= most)
		return false;
	size_t room = room_for_sets(c), bytes;
	/* Small pieces cost all who carry them more. */
	if (room < c->socket_bytes / 8) {
		wait_for_room(c);
		return false;
	}
	const uint8_t *from = queue_next(&c->queue, room < PUSH_MOST ? room : PUSH_MOST, most - c->unanswered, &bytes);
	if (!bytes)
		return false;
	if (!c->unanswered)
		c->answered = coarse_ns();
	queued_went(c, from, send_some(c, from, bytes));
	if (bytes >= room)
		wait_for_room(c);
	return true;
}

static void push(struct courier *c)
{
	for (bool goes_on = may_push(c); goes_on;)
		goes_on = push_some(c);
}

/* The socket may have room again. */
static void push_rest(struct courier *c)
{
	c->is_full = false;
	if (c->rest_at < c->rest_end)
		c->rest_at += send_some(c, c->rest + c->rest_at, c->rest_end - c->rest_at);
	push(c);
}

bool courier_set(struct courier *c, const uint8_t *frame, size_t bytes)
{
	bool queued = courier_is_there(c) && queue_add(&c->queue, frame, bytes);

	if (!queued)
		count_up(&c->count.sets_dropped);
	return queued;
}

void courier_push(struct courier *c)
{
	pthread_mutex_lock(&c->mutex);
	if (!c->unanswered)
		push_some(c);
	if (!c->is_read)
		arm(c);
	unlock(c);
}

bool courier_delete(struct courier *c, const uint8_t *names, unsigned n)
{
	uint8_t frame[FRAME_HEAD_BYTES + COURIER_DELETED * NAME_BYTES];

	frame_put(frame, FRAME_DELETE, 0, n * NAME_BYTES);
	memcpy(frame + FRAME_HEAD_BYTES, names, n * NAME_BYTES);
	return courier_is_there(c) && queue_add(&c->queue, frame, FRAME_HEAD_BYTES + n * NAME_BYTES);
}

void courier_tick(struct courier *c, uint64_t now)
{
	pthread_mutex_lock(&c->mutex);
	if (c->unanswered && now > c->answered + PATIENCE_NS)
		c->unanswered = 0;
	if (c->is_short)
		push_rest(c);
	else
		push(c);
	queue_shorten(&c->queue);
	unlock(c);
}

/* --- In ----------------------------------------------------------------------------------------- */

/* NULL: it was not asked for, or its time is over, or it was answered. */
static struct remote_want *wanted(struct courier *c, const struct frame *f, struct ask **by)
{
	for (struct ask *a = c->asks; a; a = a->next) {
		uint64_t at = f->id - a->first_id;
		if (f->id < a->first_id || at >= frames_of(a) || f->index >= FRAME_NAMES)
			continue;
		at = at * FRAME_NAMES + f->index;
		*by = a;
		return at < a->n && a->wants[at]->status == WANT_OPEN ? a->wants[at] : NULL;
	}
	return NULL;
}

static void take_value(struct courier *c, const struct frame *f, const uint8_t *payload)
{
	struct ask *a;
	struct remote_want *w = wanted(c, f, &a);

	if (!w)
		return;
	w->status = f->status;
	if (f->status == FRAME_DONE)
		take_page(w, payload, f->bytes, a->head);
	if (!--a->left)
		end_ask(c, a);
}

/* Whoever is away has refused nothing: it was not asked. */
static void take_set(struct courier *c, const struct frame *f)
{
	if (f->status == FRAME_DONE)
		count_up(&c->count.sets);
	else
		count_up(f->status == FRAME_AWAY ? &c->count.sets_dropped : &c->count.sets_refused);
	c->answered = coarse_ns();
	if (c->unanswered)
		c->unanswered--;
}

static void take_status(struct courier *c, const struct frame *f, const uint8_t *payload)
{
	uint8_t *status = malloc(f->bytes + 1);

	count_up(&c->count.heard);
	if (!status)
		return;
	memcpy(status, payload, f->bytes);
	free(c->status);
	c->status = status;
	c->status_bytes = f->bytes;
}

static bool is_formed(const struct frame *f)
{
	if (f->bytes > FRAME_MOST || f->zero)
		return false;
	switch (f->op) {
	case FRAME_VALUE:
		return f->status <= FRAME_ERROR;
	case FRAME_SET:
		return f->status <= FRAME_ERROR && !f->bytes;
	default:
		return f->op == FRAME_STATUS;
	}
}

static void take_frame(struct courier *c, const struct frame *f, const uint8_t *payload)
{
	if (f->op == FRAME_VALUE)
		take_value(c, f, payload);
	else if (f->op == FRAME_SET)
		take_set(c, f);
	else
		take_status(c, f, payload);
}

/* What has come whole. */
static void take_frames(struct courier *c)
{
	size_t at = 0;

	while (c->in_end - at >= FRAME_HEAD_BYTES) {
		struct frame f = frame_at(c->in + at);
		if (!is_formed(&f)) {
			give_up(c, "what it sent is no frame");
			return;
		}
		if (c->in_end - at < FRAME_HEAD_BYTES + f.bytes)
			break;
		take_frame(c, &f, c->in + at + FRAME_HEAD_BYTES);
		at += FRAME_HEAD_BYTES + f.bytes;
	}
	memmove(c->in, c->in + at, c->in_end - at);
	c->in_end -= at;
}

/* The reader, without the mutex; which it has afterwards. */
static void read_some(struct courier *c)
{
	ssize_t n = recv(c->fd, c->in + c->in_end, FRAME_HEAD_BYTES + FRAME_MOST - c->in_end, MSG_DONTWAIT);
	int err = errno;

	pthread_mutex_lock(&c->mutex);
	if (!n)
		give_up(c, "it has closed its end");
	else if (n < 0 && err != EAGAIN && err != EINTR)
		give_up(c, strerror(err));
	if (n > 0) {
		c->in_end += (size_t)n;
		take_frames(c);
	}
	if (c->is_full)
		push_rest(c);
	else
		push(c);
}

/* --- Waiting ------------------------------------------------------------------------------------ */

/* False: the time is over.  With the mutex before and after, and without it between. */
static bool read_until(struct courier *c, uint64_t deadline)
{
	struct pollfd p = {.fd = c->fd, .events = POLLIN};
	uint64_t now = monotonic_ns(), left = deadline > now ? deadline - now : 0;
	struct timespec t = {.tv_sec = (time_t)(left / 1000000000u), .tv_nsec = (long)(left % 1000000000u)};

	unlock(c);
	int n = ppoll(&p, 1, &t, NULL);
	if (n <= 0 && left) {
		pthread_mutex_lock(&c->mutex);
		return n < 0;
	}
	read_some(c);
	return left;
}

/* Who asks reads for all, if nobody does. */
static void begin_reading(struct courier *c, struct ask *a)
{
	if (c->is_read || !c->is_there)
		return;
	c->is_read = a->reads = true;
	arm(c);
}

/* With the mutex, and without it afterwards. */
static void read_for_all(struct courier *c, struct ask *a, uint64_t deadline)
{
	for (bool in_time = true; a->left && c->is_there && in_time;)
		in_time = read_until(c, deadline);
	unlink_ask(c, a);
	c->is_read = false;
	pass_on(c);
	unlock(c);
}

/* The same: another one reads. */
static void wait_for_reader(struct courier *c, struct ask *a, uint64_t deadline)
{
	unlock(c);
	if (!sleep_until_told(a, deadline)) {
		pthread_mutex_lock(&c->mutex);
		if (!a->is_ended && !a->reads) {
			unlink_ask(c, a);
			unlock(c);
			return;
		}
		/* It was chosen just now. */
		unlock(c);
		sleep_until_told(a, 0);
	}
	if (told(a) == ASK_READS) {
		pthread_mutex_lock(&c->mutex);
		read_for_all(c, a, deadline);
	}
}

static size_t put_gets(uint8_t *to, uint64_t id, unsigned n, const uint8_t *names)
{
	uint8_t *at = to;

	for (unsigned i = 0, some; i < n; i += some) {
		some = n - i < FRAME_NAMES ? n - i : FRAME_NAMES;
		frame_put(at, FRAME_GET, id++, some * NAME_BYTES);
		memcpy(at + FRAME_HEAD_BYTES, names + i * NAME_BYTES, some * NAME_BYTES);
		at += FRAME_HEAD_BYTES + some * NAME_BYTES;
	}
	return (size_t)(at - to);
}

static void begin_ask(struct courier *c, struct ask *a)
{
	for (unsigned i = 0; i < a->n; i++)
		a->wants[i]->status = WANT_OPEN;
	c->asked = coarse_ns();
	a->first_id = c->next_id;
	c->next_id += frames_of(a);
	a->next = c->asks;
	c->asks = a;
	c->users++;
}

unsigned courier_ask(struct courier *c, struct remote_want **wants, unsigned n, const uint8_t *names,
		     unsigned head, uint64_t deadline)
{
	uint8_t frames[COURIER_GETS_BYTES];
	struct ask a = {.wants = wants, .n = n, .left = n, .head = head};

	pthread_mutex_lock(&c->mutex);
	begin_ask(c, &a);
	/* Before the question: the answer may come before send() returns, and would wake the serving thread. */
	begin_reading(c, &a);
	if (!send_whole(c, frames, put_gets(frames, a.first_id, n, names)))
		deadline = 1;
	if (a.reads)
		read_for_all(c, &a, deadline);
	else
		wait_for_reader(c, &a, deadline);
	return n - a.left;
}

/* --- Its life ----------------------------------------------------------------------------------- */

static int open_epoll(int fd)
{
	struct epoll_event e = {.events = EPOLLONESHOT};
	int epoll = epoll_create1(EPOLL_CLOEXEC);

	if (epoll < 0)
		return -errno;
	if (epoll_ctl(epoll, EPOLL_CTL_ADD, fd, &e)) {
		int err = -errno;
		close(epoll);
		return err;
	}
	return epoll;
}

static size_t socket_bytes(int fd)
{
	int bytes = 0;
	socklen_t size = sizeof bytes;

	getsockopt(fd, SOL_SOCKET, SO_SNDBUF, &bytes, &size);
	return (size_t)bytes;
}

int courier_connect(struct courier *c, int fd)
{
	if (courier_is_there(c))
		return -EBUSY;
	courier_disconnect(c);
	int epoll = open_epoll(fd);
	if (epoll < 0)
		return epoll;
	pthread_mutex_lock(&c->mutex);
	c->fd = fd;
	c->epoll = epoll;
	c->socket_bytes = socket_bytes(fd);
	c->rest_at = c->rest_end = c->in_end = 0;
	c->is_full = c->is_short = false;
	c->unanswered = 0;
	c->status_bytes = 0;
	memset(c->why, 0, sizeof c->why);
	queue_open(&c->queue);
	__atomic_store_n(&c->is_there, true, __ATOMIC_RELAXED);
	pthread_mutex_unlock(&c->mutex);
	return 0;
}

void courier_disconnect(struct courier *c)
{
	pthread_mutex_lock(&c->mutex);
	give_up(c, "disconnected");
	unlock(c);
	pthread_mutex_lock(&c->mutex);
	while (c->users)
		pthread_cond_wait(&c->left, &c->mutex);
	if (c->fd >= 0) {
		close(c->epoll);
		close(c->fd);
	}
	c->fd = c->epoll = -1;
	queue_close(&c->queue);
	pthread_mutex_unlock(&c->mutex);
}

static void serve(struct courier *c)
{
	struct epoll_event e;

	while (c->is_there) {
		unlock(c);
		int n = epoll_wait(c->epoll, &e, 1, -1);
		pthread_mutex_lock(&c->mutex);
		if (n <= 0 || !c->is_there)
			continue;
		if (c->is_read) {
			/* Another thread reads by now, and is the one to pass that on. */
			if (c->is_full)
				push_rest(c);
			continue;
		}
		c->is_read = true;
		unlock(c);
		read_some(c);
		c->is_read = false;
		pass_on(c);
	}
}

const char *courier_serve(struct courier *c)
{
	pthread_mutex_lock(&c->mutex);
	if (c->is_there && !c->is_served) {
		c->users++;
		c->is_served = true;
		arm(c);
		serve(c);
		c->is_served = false;
		if (!--c->users)
			pthread_cond_broadcast(&c->left);
	}
	unlock(c);
	return c->why;
}

size_t courier_status(struct courier *c, uint8_t *to, size_t room)
{
	pthread_mutex_lock(&c->mutex);
	size_t bytes = c->status_bytes;
	if (bytes && bytes <= room)
		memcpy(to, c->status, bytes);
	pthread_mutex_unlock(&c->mutex);
	return bytes;
}
