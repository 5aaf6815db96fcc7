/* SPDX-License-Identifier: BSD-3-Clause */
/* Stops after each store into shared memory and before each call that changes a file, for tests
 * that kill a process between any two of them.
 *
 * Loaded before the C library, so that it sees mappings come and go.  They are write-protected:
 * each store faults, the handler opens the page, lets the processor run one instruction (the trap
 * flag), protects the page again and asks the other side of a socket to look at the files before
 * it goes on.  One thread, x86-64.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <signal.h>
#include <stdarg.h>
#include <stdint.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <ucontext.h>
#include <unistd.h>

#define PAGE 4096ul
#define TRAP_FLAG 0x100
#define MAPPINGS 16
#define OPENED 4

static struct {
	uint8_t *base;
	size_t length;
} mappings[MAPPINGS];
static uint8_t *opened[OPENED];
static int n_opened, channel = -1;
static uint64_t drawn;

static void show(void)
{
	char c = 's';

	if (channel < 0)
		return;
	if (syscall(SYS_write, channel, &c, 1) != 1 || syscall(SYS_read, channel, &c, 1) != 1)
		_exit(3);
}

static int is_ours(const uint8_t *at)
{
	for (int i = 0; i < MAPPINGS; i++)
		if (mappings[i].base && at >= mappings[i].base &&
		    at < mappings[i].base + mappings[i].length)
			return 1;
	return 0;
}

static void protect_all(int how)
{
	for (int i = 0; i < MAPPINGS; i++)
		if (mappings[i].base)
			mprotect(mappings[i].base, mappings[i].length, how);
}

/* A store across a page's end faults twice before it is done. */
static void on_fault(int sig, siginfo_t *info, void *context)
{
	ucontext_t *u = context;
	uint8_t *at = info->si_addr;

	if (channel < 0 || n_opened == OPENED || !is_ours(at)) {
		signal(sig, SIG_DFL);
		return;
	}
	if (!n_opened)
		show();
	opened[n_opened] = (uint8_t *)((uintptr_t)at / PAGE * PAGE);
	mprotect(opened[n_opened++], PAGE, PROT_READ | PROT_WRITE);
	u->uc_mcontext.gregs[REG_EFL] |= TRAP_FLAG;
}

static void on_trap(int sig, siginfo_t *info, void *context)
{
	ucontext_t *u = context;

	(void)sig;
	(void)info;
	while (n_opened)
		mprotect(opened[--n_opened], PAGE, PROT_READ);
	u->uc_mcontext.gregs[REG_EFL] &= ~(greg_t)TRAP_FLAG;
	show();
}

int stepping_begin(int fd)
{
	struct sigaction fault = {.sa_sigaction = on_fault, .sa_flags = SA_SIGINFO};
	struct sigaction trap = {.sa_sigaction = on_trap, .sa_flags = SA_SIGINFO};

	if (sigaction(SIGSEGV, &fault, NULL) || sigaction(SIGTRAP, &trap, NULL))
		return -1;
	channel = fd;
	drawn = (uint64_t)getpid();
	protect_all(PROT_READ);
	return 0;
}

void stepping_end(void)
{
	show();
	channel = -1;
	protect_all(PROT_READ | PROT_WRITE);
}

#define REAL(name) ((__typeof__(&name))dlsym(RTLD_NEXT, #name))

static void *mapped(void *at, size_t length, int flags, int fd)
{
	for (int i = 0; at != MAP_FAILED && flags & MAP_SHARED && fd >= 0 && i < MAPPINGS; i++) {
		if (mappings[i].base)
			continue;
		mappings[i].base = at;
		mappings[i].length = length;
		if (channel >= 0)
			mprotect(at, length, PROT_READ);
		break;
	}
	return at;
}

void *mmap(void *addr, size_t length, int prot, int flags, int fd, off_t offset)
{
	return mapped((void *)syscall(SYS_mmap, addr, length, prot, flags, fd, offset), length,
		      flags, fd);
}

void *mmap64(void *addr, size_t length, int prot, int flags, int fd, off_t offset)
{
	return mmap(addr, length, prot, flags, fd, offset);
}

int munmap(void *addr, size_t length)
{
	for (int i = 0; i < MAPPINGS; i++)
		if (mappings[i].base == addr)
			mappings[i].base = NULL;
	return (int)syscall(SYS_munmap, addr, length);
}

#define CHANGES(result, name, parameters, arguments)                                               \
	result name parameters                                                                     \
	{                                                                                          \
		show();                                                                            \
		return REAL(name) arguments;                                                       \
	}

CHANGES(int, rename, (const char *from, const char *to), (from, to))
CHANGES(int, unlink, (const char *path), (path))
CHANGES(int, truncate64, (const char *path, off_t size), (path, size))
CHANGES(int, ftruncate, (int fd, off_t size), (fd, size))
CHANGES(int, ftruncate64, (int fd, off_t size), (fd, size))
CHANGES(int, posix_fallocate64, (int fd, off_t from, off_t bytes), (fd, from, bytes))
CHANGES(int, fallocate, (int fd, int how, off_t from, off_t bytes), (fd, how, from, bytes))
CHANGES(int, fallocate64, (int fd, int how, off_t from, off_t bytes), (fd, how, from, bytes))
/* The kernel may not store there either.  Each process draws numbers of its own, but the same ones
 * in each run, so that a state is known when it comes again. */
ssize_t getrandom(void *to, size_t n, unsigned flags)
{
	(void)flags;
	for (size_t i = 0; i < n; i++) {
		drawn = drawn * 6364136223846793005ull + 1442695040888963407ull;
		((volatile uint8_t *)to)[i] = (uint8_t)(drawn >> 56);
	}
	return (ssize_t)n;
}

ssize_t write(int fd, const void *data, size_t n)
{
	if (fd != STDERR_FILENO)
		show();
	return syscall(SYS_write, fd, data, n);
}

CHANGES(ssize_t, pwrite, (int fd, const void *data, size_t n, off_t at), (fd, data, n, at))
CHANGES(ssize_t, pwrite64, (int fd, const void *data, size_t n, off_t at), (fd, data, n, at))
