/* SPDX-License-Identifier: BSD-3-Clause */
/* A client of a swap disk over NBD that plays recorded requests, in their order and at their times,
 * and checks every byte that it reads.
 *
 *   player SOCKET EXPORT FIRST SPEED
 *
 * Reads names of files, a line each, plays one after the other and prints a line for each: seconds,
 * seconds of them that the disk held it up, requests, pages read, written and trimmed, then the
 * 50th, 99th and 99.9th percentile of the time of reads and of writes, in microseconds.
 *
 * A file has a request a line, `TIME OP PAGE COUNT [SIZES]` (traces/README.md).  PAGE is counted
 * from page FIRST of the disk, times are divided by SPEED.  At most 16 requests are under way, and
 * none that meets another one's pages, unless both read: who has to wait for the disk is late from
 * then on, as a guest is.
 *
 * A page is made from its number and its version alone, so that a wrong one is told from the right
 * one, and says whose it is.  Exit status 1: a wrong page, an error of the disk, or of this program's
 * input.
 */
#define _GNU_SOURCE
#include <endian.h>
#include <errno.h>
#include <inttypes.h>
#include <poll.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#define PAGE 4096u
#define WORDS (PAGE / 8)
#define MOST_PAGES 1024u
#define DEPTH 16
#define UNIT 1e-4                      /* of TIME, in seconds */
/* LZ4's own bytes, by trial, in a page of random words with one repeated word behind them. */
#define OVERHEAD 56u
#define NOT_COMPRESSIBLE 255u

enum op { READ = 0, WRITE = 1, DISCONNECT = 2, TRIM = 4 };  /* NBD's numbers */

struct request {
	double gap;
	enum op op;
	uint32_t page, count;
	uint8_t sizes[MOST_PAGES];
};

struct slot {
	int busy;
	enum op op;
	uint32_t page, count;
	double sent;
};

struct times {
	float *all;
	size_t count, room;
};

static int disk;
static uint64_t first;
static double speed;
static struct slot slots[DEPTH];
static uint32_t pages, *versions;      /* version 0: zeros */
static uint8_t *sizes;
static struct times reads, writes;
static uint64_t requests, pages_of[TRIM + 1];
static double late;
/* What is sent and what the socket has not taken yet. */
static uint8_t *out;
static size_t out_begin, out_end, out_room;

static void die(const char *text, ...)
{
	va_list arguments;

	va_start(arguments, text);
	vfprintf(stderr, text, arguments);
	va_end(arguments);
	fputc('\n', stderr);
	exit(1);
}

static double now(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

/* --- pages --- */

static uint64_t next_random(uint64_t *s)
{
	*s ^= *s << 13;
	*s ^= *s >> 7;
	*s ^= *s << 17;
	return *s;
}

/* `size`: what it shall compress to, in units of 16 bytes; 0: one word repeated. */
static void make_page(uint64_t *page, uint32_t number, uint32_t version, unsigned size)
{
	uint64_t name = (uint64_t)number << 32 | version, s = (name + 1) * 0x9e3779b97f4a7c15u;
	unsigned bytes = size * 16 > OVERHEAD ? size * 16 - OVERHEAD : 0;
	unsigned random = size == NOT_COMPRESSIBLE ? WORDS : size ? 2 + bytes / 8 : 0;

	if (!version)
		name = 0;
	for (unsigned i = 0; i < WORDS; i++)
		page[i] = i && i < random ? next_random(&s) : name;
}

static void check_page(const uint8_t *seen, uint32_t number)
{
	uint64_t wanted[WORDS], name;

	make_page(wanted, number, versions[number], sizes[number]);
	if (!memcmp(seen, wanted, PAGE))
		return;
	memcpy(&name, seen, sizeof name);
	die("page %" PRIu32 " is not version %" PRIu32 " of it: its first word is that of version"
	    " %" PRIu32 " of page %" PRIu32, number, versions[number], (uint32_t)name,
	    (uint32_t)(name >> 32));
}

/* --- the protocol --- */

static void receive(void *into, size_t size)
{
	for (uint8_t *at = into; size;) {
		ssize_t got = recv(disk, at, size, 0);

		if (got < 0 && errno == EINTR)
			continue;
		if (got <= 0)
			die("the server has closed the connection");
		at += got;
		size -= (size_t)got;
	}
}

static void flush_out(void)
{
	while (out_begin < out_end) {
		ssize_t gone = send(disk, out + out_begin, out_end - out_begin,
				    MSG_DONTWAIT | MSG_NOSIGNAL);

		if (gone < 0 && (errno == EAGAIN || errno == EINTR))
			return;
		if (gone < 0)
			die("the server has closed the connection");
		out_begin += (size_t)gone;
	}
	out_begin = out_end = 0;
}

static uint8_t *room_in_out(size_t size)
{
	if (out_end + size > out_room) {
		memmove(out, out + out_begin, out_end - out_begin);
		out_end -= out_begin;
		out_begin = 0;
	}
	if (out_end + size > out_room) {
		out_room = 2 * (out_end + size);
		out = realloc(out, out_room);
		if (!out)
			die("no memory");
	}
	out_end += size;
	return out + out_end - size;
}

static void send_header(enum op op, uint64_t cookie, uint64_t offset, uint32_t length)
{
	struct __attribute__((packed)) {
		uint32_t magic;
		uint16_t flags, type;
		uint64_t cookie, offset;
		uint32_t length;
	} header = { htobe32(0x25609513), 0, htobe16(op), cookie, htobe64(offset), htobe32(length) };

	memcpy(room_in_out(sizeof header), &header, sizeof header);
}

static void connect_to(const char *path, const char *export)
{
	struct sockaddr_un address = { .sun_family = AF_UNIX };
	struct __attribute__((packed)) { uint64_t magic, options; uint16_t flags; } hello;
	struct __attribute__((packed)) {
		uint32_t flags;
		uint64_t options;
		uint32_t option, length;
	} wish = { htobe32(3), htobe64(0x49484156454F5054), htobe32(1), htobe32((uint32_t)strlen(export)) };
	struct __attribute__((packed)) { uint64_t size; uint16_t flags; } given;

	disk = socket(AF_UNIX, SOCK_STREAM, 0);
	strncpy(address.sun_path, path, sizeof address.sun_path - 1);
	if (connect(disk, (struct sockaddr *)&address, sizeof address))
		die("%s: %s", path, strerror(errno));
	receive(&hello, sizeof hello);
	if (be64toh(hello.magic) != 0x4e42444d41474943 || hello.options != wish.options)
		die("%s: this is not an NBD server of the new style", path);
	memcpy(room_in_out(sizeof wish), &wish, sizeof wish);
	memcpy(room_in_out(strlen(export)), export, strlen(export));
	flush_out();
	receive(&given, sizeof given);
	if (be64toh(given.size) / PAGE < first)
		die("the disk ends before page %" PRIu64, first);
	pages = (uint32_t)(be64toh(given.size) / PAGE - first);
}

/* --- requests --- */

static void take_time(struct times *times, double seconds)
{
	if (times->count == times->room) {
		times->room = times->room ? 2 * times->room : 1 << 16;
		times->all = realloc(times->all, times->room * sizeof *times->all);
		if (!times->all)
			die("no memory");
	}
	times->all[times->count++] = (float)(seconds * 1e6);
}

static void take_reply(void)
{
	static uint8_t data[MOST_PAGES * PAGE];
	struct __attribute__((packed)) { uint32_t magic, error; uint64_t cookie; } reply;

	receive(&reply, sizeof reply);
	if (be32toh(reply.magic) != 0x67446698 || reply.cookie >= DEPTH || !slots[reply.cookie].busy)
		die("the server's reply is none");
	struct slot *slot = &slots[reply.cookie];
	if (reply.error)
		die("%s of pages %" PRIu32 " to %" PRIu32 ": %s",
		    slot->op == READ ? "reading" : slot->op == WRITE ? "writing" : "trimming",
		    slot->page, slot->page + slot->count - 1, strerror((int)be32toh(reply.error)));
	if (slot->op == READ)
		receive(data, (size_t)slot->count * PAGE);
	if (slot->op != TRIM)
		take_time(slot->op == READ ? &reads : &writes, now() - slot->sent);
	slot->busy = 0;
	for (uint32_t i = 0; slot->op == READ && i < slot->count; i++)
		check_page(data + (size_t)i * PAGE, slot->page + i);
}

/* Sends, and takes a reply if there is one; seconds < 0: waits as long as it takes. */
static void serve(double seconds)
{
	struct pollfd socket = { disk, (short)(POLLIN | (out_begin < out_end ? POLLOUT : 0)), 0 };
	struct timespec limit = { (time_t)seconds, (long)((seconds - (double)(time_t)seconds) * 1e9) };

	if (ppoll(&socket, 1, seconds < 0 ? NULL : &limit, NULL) < 0 && errno != EINTR)
		die("poll: %s", strerror(errno));
	if (socket.revents & POLLOUT)
		flush_out();
	if (socket.revents & (POLLIN | POLLHUP | POLLERR))
		take_reply();
}

static struct slot *slot_for(const struct request *r)
{
	struct slot *unused = NULL;

	for (struct slot *slot = slots; slot < slots + DEPTH; slot++)
		if (!slot->busy)
			unused = slot;
		else if ((r->op != READ || slot->op != READ) && r->page < slot->page + slot->count &&
			 slot->page < r->page + r->count)
			return NULL;
	return unused;
}

static void send_request(struct slot *slot, const struct request *r)
{
	*slot = (struct slot){ 1, r->op, r->page, r->count, now() };
	send_header(r->op, (uint64_t)(slot - slots), (first + r->page) * PAGE, r->count * PAGE);
	requests++;
	pages_of[r->op] += r->count;
	for (uint32_t i = 0; r->op != READ && i < r->count; i++) {
		uint32_t number = r->page + i;
		static uint32_t newest;

		versions[number] = r->op == TRIM ? 0 : ++newest;
		sizes[number] = r->op == TRIM ? 0 : r->sizes[i];
		if (r->op == WRITE) {
			uint64_t page[WORDS];

			make_page(page, number, versions[number], sizes[number]);
			memcpy(room_in_out(PAGE), page, PAGE);
		}
	}
	flush_out();
}

static int next_request(FILE *file, struct request *r)
{
	static char *line;
	static size_t room;
	char op, *at;
	int sizes_at;

	do
		if (getline(&line, &room, file) < 0)
			return 0;
	while (line[0] == '#');
	if (sscanf(line, "%lf %c %" SCNu32 " %" SCNu32 " %n", &r->gap, &op, &r->page, &r->count,
		   &sizes_at) != 4)
		die("not a request: %s", line);
	r->gap *= UNIT / speed;
	r->op = op == 'R' ? READ : op == 'W' ? WRITE : TRIM;
	if (!r->count || r->page >= pages || r->count > pages - r->page ||
	    (r->op != TRIM && r->count > MOST_PAGES))
		die("the disk does not have this, or not at once: %s", line);
	at = line + sizes_at;
	for (uint32_t i = 0; r->op == WRITE && i < r->count; i++, at += 2)
		if (sscanf(at, "%2hhx", &r->sizes[i]) != 1)
			die("a size is missing: %s", line);
	return 1;
}

static void play(FILE *file)
{
	static struct request r;
	double due = now();

	while (next_request(file, &r)) {
		struct slot *slot;
		int held = 0;

		due += r.gap;
		for (;;) {
			double left = due - now();

			slot = slot_for(&r);
			if (slot && left <= 0)
				break;
			held |= !slot && left <= 0;
			serve(slot || left > 0 ? left : -1);
		}
		if (held) {
			double waited = now() - due;

			late += waited;
			due += waited;
		}
		send_request(slot, &r);
	}
	for (int i = 0; i < DEPTH; i++)
		while (slots[i].busy)
			serve(-1);
}

/* --- what is told --- */

static int by_size(const void *a, const void *b)
{
	float x = *(const float *)a, y = *(const float *)b;

	return (x > y) - (x < y);
}

static void tell_times(struct times *times)
{
	qsort(times->all, times->count, sizeof *times->all, by_size);
	for (int i = 0; i < 3; i++) {
		size_t at = (size_t)((double)times->count * (double[]){ .5, .99, .999 }[i]);

		printf(" %.1f", times->count ? (double)times->all[at] : 0.0);
	}
	times->count = 0;
}

static void tell(double seconds)
{
	printf("%.4f %.4f %" PRIu64 " %" PRIu64 " %" PRIu64 " %" PRIu64, seconds, late, requests,
	       pages_of[READ], pages_of[WRITE], pages_of[TRIM]);
	tell_times(&reads);
	tell_times(&writes);
	putchar('\n');
	fflush(stdout);
	late = 0;
	requests = 0;
	memset(pages_of, 0, sizeof pages_of);
}

int main(int argc, char **argv)
{
	char *name = NULL;
	size_t room = 0;

	if (argc != 5) {
		fprintf(stderr, "usage: player SOCKET EXPORT FIRST SPEED\n");
		return 2;
	}
	first = strtoull(argv[3], NULL, 10);
	speed = strtod(argv[4], NULL);
	connect_to(argv[1], argv[2]);
	versions = calloc(pages, sizeof *versions);
	sizes = calloc(pages, sizeof *sizes);
	if (!versions || !sizes || speed <= 0)
		die("no memory, or no speed");
	while (getline(&name, &room, stdin) > 0) {
		name[strcspn(name, "\n")] = 0;
		FILE *file = fopen(name, "r");

		if (!file)
			die("%s: %s", name, strerror(errno));
		double begun = now();
		play(file);
		tell(now() - begun);
		fclose(file);
	}
	send_header(DISCONNECT, 0, 0, 0);
	flush_out();
	return 0;
}
