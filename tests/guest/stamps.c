// SPDX-License-Identifier: BSD-3-Clause
// In a guest: memory of pages that say which they are and how often each was written, checked page by page.
//     stamps MIB <>FIFO >RESULTS
// A byte 'w' on standard input writes every page anew, a 'c' reads every page. Each answers with a line
//     BYTE RIGHT FAILED ZEROS OLDER WRONG
// of numbers of pages: what the last write left there; no answer, an I/O error; all zeros; what an earlier write left
// there; anything else. Its own program and stack are never swapped, so it lives on where a page of the others is lost.
#include <setjmp.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

enum { PAGE = 4096, WORDS = PAGE / 8, DIFFERENT = 64, MOST = 1 << 17 };
enum kind { RIGHT, FAILED, ZEROS, OLDER, WRONG, KINDS };

static uint32_t written[MOST];  // how often; 0 where an error came in the middle of a write
static uint64_t wanted[WORDS], found[WORDS];
static sigjmp_buf failed;
static uint32_t round_now;

static void on_error(int number) {
    (void)number;
    siglongjmp(failed, 1);
}

// A quarter of it is packed well, the rest repeats it.
static void stamp(uint64_t *words, uint64_t page, uint64_t version) {
    uint64_t state = page << 20 | version;
    for (int i = 0; i < DIFFERENT; i++) {
        words[i] = state;
        state = (state ^ state >> 29) * 0xbf58476d1ce4e5b9 + 1;
    }
    for (int i = DIFFERENT; i < WORDS; i++) words[i] = words[i - DIFFERENT];
}

static enum kind check(const volatile uint64_t *memory, size_t page) {
    if (!written[page] || sigsetjmp(failed, 1)) return FAILED;
    uint64_t sum = 0;
    for (int i = 0; i < WORDS; i++) sum |= found[i] = memory[i];
    stamp(wanted, page, written[page]);
    if (!memcmp(found, wanted, PAGE)) return RIGHT;
    if (!sum) return ZEROS;
    stamp(wanted, page, found[0] & 0xfffff);
    return memcmp(found, wanted, PAGE) ? WRONG : OLDER;
}

static enum kind rewrite(volatile uint64_t *memory, size_t page) {
    if (sigsetjmp(failed, 1)) return FAILED;
    memory[0] = memory[0];  // here it is read, if it was swapped
    written[page] = 0;
    stamp(wanted, page, round_now);
    for (int i = 0; i < WORDS; i++) memory[i] = wanted[i];
    written[page] = round_now;
    return RIGHT;
}

int main(int count, char **arguments) {
    size_t pages = count == 2 ? strtoul(arguments[1], NULL, 10) << 8 : 0;
    if (!pages || pages > MOST) return 2;
    struct sigaction action = {.sa_handler = on_error};
    if (sigaction(SIGBUS, &action, NULL) || mlockall(MCL_CURRENT)) return 1;
    volatile uint64_t *memory =
        mmap(NULL, pages * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (memory == MAP_FAILED) return 1;

    for (char order; read(0, &order, 1) == 1;) {
        if (order != 'w' && order != 'c') continue;
        if (order == 'w') round_now++;
        size_t seen[KINDS] = {0};
        for (size_t page = 0; page < pages; page++) {
            volatile uint64_t *here = memory + page * WORDS;
            seen[order == 'w' ? rewrite(here, page) : check(here, page)]++;
        }
        dprintf(1, "%c %zu %zu %zu %zu %zu\n", order, seen[RIGHT], seen[FAILED], seen[ZEROS], seen[OLDER],
                seen[WRONG]);
    }
}
