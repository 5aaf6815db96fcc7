/* SPDX-License-Identifier: BSD-3-Clause */
/* An in-memory store, reduced to what swapping sees of one: records in anonymous memory, read and
 * rewritten in random order, each read checked byte by byte.
 *
 *   store MIB REQUESTS WRITES SPREAD [TURN]
 *
 * Fills MIB with records of 1 KiB and prints "ready"; then sends itself REQUESTS requests (0: until
 * it is killed), WRITES per cent of them writes.  80 per cent of them go to the SPREAD per cent of
 * the records that are popular (100: all alike).  At the end, and at each SIGUSR1, it prints a line
 * with seconds and requests since the line before, and the 50th, 99th and 99.9th percentile of a
 * request's time in microseconds.  With TURN it stops itself when it is ready, and after each TURN
 * requests and their line, until somebody lets it continue; a SIGTERM has it read all its records
 * once more and end.  Exit status 1: a record was not what had been written.
 */
#define _GNU_SOURCE
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#define RECORD 1024u
#define WORDS (RECORD / 8)
#define RANDOM_WORDS 44u               /* the others are the number: compresses to a third */
#define MOST_TIMES (1u << 18)          /* of a line; what comes after them is not in percentiles */

static volatile sig_atomic_t asked, ended;
static uint32_t times[MOST_TIMES];
static uint64_t requests;
static uint32_t *versions;             /* of the records; never swapped, so that these are right */
static uint64_t state = 88172645463325252u;

static void ask(int number)
{
	(void)number;
	asked = 1;
}

static void end(int number)
{
	(void)number;
	ended = 1;
}

static uint64_t next_random(uint64_t *s)
{
	*s ^= *s << 13;
	*s ^= *s >> 7;
	*s ^= *s << 17;
	return *s;
}

static uint64_t now(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

/* The first word is the version, and decides with the number, and whose it is, what follows. */
static void write_record(uint64_t *record, uint64_t number, uint64_t version)
{
	uint64_t s = (number + 1) * 0x9e3779b97f4a7c15u ^ (version + 1) ^ (uint64_t)getpid() << 40;

	record[0] = version;
	for (unsigned i = 1; i < WORDS; i++)
		record[i] = i < RANDOM_WORDS ? next_random(&s) : number;
}

static int is_right(const uint64_t *record, uint64_t number)
{
	uint64_t wanted[WORDS];

	write_record(wanted, number, versions[number]);
	return !memcmp(record, wanted, RECORD);
}

static int check_record(const uint64_t *record, uint64_t number)
{
	if (is_right(record, number))
		return 1;
	printf("record %llu is wrong\n", (unsigned long long)number);
	return 0;
}

static int by_size(const void *a, const void *b)
{
	uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;

	return (x > y) - (x < y);
}

static void tell(uint64_t *since)
{
	uint64_t end = now();
	size_t n = requests < MOST_TIMES ? requests : MOST_TIMES;

	qsort(times, n, sizeof *times, by_size);
	printf("%.3f %llu", (double)(end - *since) / 1e9, (unsigned long long)requests);
	for (int i = 0; i < 3; i++)
		printf(" %.1f", n ? times[(size_t)((double)n * (double[]){.5, .99, .999}[i])] / 1e3 : 0.0);
	printf("\n");
	fflush(stdout);
	asked = 0;
	requests = 0;
	*since = now();
}

int main(int argc, char **argv)
{
	if (argc != 5 && argc != 6)
		return 2;
	uint64_t records = strtoull(argv[1], NULL, 10) << 10, left = strtoull(argv[2], NULL, 10);
	uint64_t writes = strtoull(argv[3], NULL, 10), popular = strtoull(argv[4], NULL, 10);
	uint64_t turn = argc == 6 ? strtoull(argv[5], NULL, 10) : 0, done = 0;
	uint64_t *all = mmap(NULL, records * RECORD, PROT_READ | PROT_WRITE,
			     MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	versions = calloc(records, sizeof *versions);
	if (all == MAP_FAILED || !versions || !records || !popular)
		return 2;
	mlock(versions, records * sizeof *versions);
	/* A huge page would be swapped in one piece, which no store with small records sees. */
	madvise(all, records * RECORD, MADV_NOHUGEPAGE);
	memset(times, 1, sizeof times);
	for (uint64_t number = 0; number < records; number++)
		write_record(all + number * WORDS, number, 0);
	signal(SIGUSR1, ask);
	if (turn)
		signal(SIGTERM, end);
	puts("ready");
	fflush(stdout);
	if (turn)
		raise(SIGSTOP);

	uint64_t since = now(), forever = !left;
	while (!ended && (forever || left--)) {
		uint64_t number = next_random(&state) % records;
		if (next_random(&state) % 100 < 80)
			number = number * popular / 100;
		uint64_t *record = all + number * WORDS, begun = now();
		if (next_random(&state) % 100 < writes)
			write_record(record, number, ++versions[number]);
		else if (!check_record(record, number))
			return 1;
		uint64_t taken = now() - begun;
		if (requests < MOST_TIMES)
			times[requests] = taken < UINT32_MAX ? (uint32_t)taken : UINT32_MAX;
		requests++;
		if (turn && ++done % turn == 0) {
			tell(&since);
			raise(SIGSTOP);
			since = now();
		}
		if (asked)
			tell(&since);
	}
	if (!forever)
		tell(&since);
	for (uint64_t number = 0; turn && number < records; number++)
		if (!check_record(all + number * WORDS, number))
			return 1;
	return 0;
}
