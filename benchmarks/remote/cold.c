/* SPDX-License-Identifier: BSD-3-Clause */
/* In a guest: memory that is read page by page, in random order and by several threads at once, and how
 * long those reads took for which a page had to come from the swap disk.
 *
 *   cold MIB THREADS SECONDS
 *
 * Fills MIB with pages of which a half compresses, prints "ready", and stops itself.  Each time that
 * somebody lets it continue it reads for SECONDS, prints of each page-in when it began and how long it
 * took, in nanoseconds, then "done", all from the beginning of its standard output, and stops itself
 * again.  Exit status 1: a page was not what had been written.  Without arguments it prints what time
 * it is.
 */
#define _GNU_SOURCE
#include <pthread.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <time.h>

#define PAGE 4096u
#define WORDS (PAGE / 8)
#define STACK (64u << 10)
#define MOST_THREADS 64u
#define MOST_SEEN (1u << 17)

struct seen {
	uint64_t begun, took;
};

/* Never swapped, as all of the program but the pages that are read. */
static _Alignas(PAGE) char stacks[MOST_THREADS][STACK];
static struct seen seen[MOST_SEEN];
static size_t count;
static uint64_t pages, end;
static uint64_t *memory;

static uint64_t now(void)
{
	struct timespec t;

	clock_gettime(CLOCK_REALTIME, &t);
	return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

static uint64_t word(uint64_t page, unsigned i)
{
	return i < WORDS / 2 ? (page * WORDS + i + 1) * 0x9e3779b97f4a7c15u : page;
}

static void write_page(uint64_t page)
{
	for (unsigned i = 0; i < WORDS; i++)
		memory[page * WORDS + i] = word(page, i);
}

static void check(uint64_t page)
{
	for (unsigned i = 0; i < WORDS; i++) {
		if (memory[page * WORDS + i] != word(page, i)) {
			printf("page %llu is wrong\n", (unsigned long long)page);
			exit(1);
		}
	}
}

static long page_ins(void)
{
	struct rusage used;

	getrusage(RUSAGE_THREAD, &used);
	return used.ru_majflt;
}

static void *read_pages(void *number)
{
	uint64_t state = end ^ ((uintptr_t)number + 1) * 0x9e3779b97f4a7c15u, begun = 0;

	for (long before = page_ins(), after; begun < end; before = after) {
		state ^= state << 13;
		state ^= state >> 7;
		state ^= state << 17;
		uint64_t page = state % pages;
		begun = now();
		(void)*(volatile uint64_t *)&memory[page * WORDS];
		uint64_t took = now() - begun;
		after = page_ins();
		size_t at = after == before ? MOST_SEEN : __atomic_fetch_add(&count, 1, __ATOMIC_RELAXED);
		if (at < MOST_SEEN)
			seen[at] = (struct seen){begun, took};
		check(page);
	}
	return NULL;
}

static int read_for(uint64_t threads, uint64_t ns)
{
	pthread_t running[MOST_THREADS];

	count = 0;
	end = now() + ns;
	for (uint64_t i = 0; i < threads; i++) {
		pthread_attr_t own;
		pthread_attr_init(&own);
		pthread_attr_setstack(&own, stacks[i], STACK);
		if (pthread_create(&running[i], &own, read_pages, (void *)(uintptr_t)i))
			return 2;
	}
	for (uint64_t i = 0; i < threads; i++)
		pthread_join(running[i], NULL);
	return 0;
}

static void tell(void)
{
	rewind(stdout);
	for (size_t i = 0; i < count && i < MOST_SEEN; i++)
		printf("%llu %llu\n", (unsigned long long)seen[i].begun, (unsigned long long)seen[i].took);
	puts("done");
}

/* Each page has been swapped when this ends: none has to be written when another one is read. */
static int fill(void)
{
	memory = mmap(NULL, pages * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (memory == MAP_FAILED)
		return 2;
	/* A huge page would come and go in one piece. */
	madvise(memory, pages * PAGE, MADV_NOHUGEPAGE);
	for (uint64_t page = 0; page < pages; page++)
		write_page(page);
	for (uint64_t page = 0; page < pages; page++)
		check(page);
	return 0;
}

int main(int argc, char **argv)
{
	if (argc == 1)
		return printf("%llu\n", (unsigned long long)now()) < 0;
	if (argc != 4)
		return 2;
	pages = strtoull(argv[1], NULL, 10) << 8;
	uint64_t threads = strtoull(argv[2], NULL, 10);
	uint64_t ns = (uint64_t)(1e9 * strtod(argv[3], NULL));
	if (!pages || !threads || threads > MOST_THREADS || mlockall(MCL_CURRENT) || fill())
		return 2;
	for (puts("ready");; tell()) {
		fflush(stdout);
		raise(SIGSTOP);
		if (read_for(threads, ns))
			return 2;
	}
}
