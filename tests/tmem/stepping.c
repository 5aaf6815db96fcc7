/* Stops after each store into a mapping, for tests that kill a process between any two.
 *
 * The mapping is write-protected, so that each store faults.  The handler opens the page, lets
 * the processor run one instruction (the trap flag), protects the page again and asks the other
 * side of a socket to look at the file before it goes on.  What system calls change in between
 * shows at the next stop.  One thread, x86-64.
 */
#define _GNU_SOURCE
#include <signal.h>
#include <stdint.h>
#include <sys/mman.h>
#include <ucontext.h>
#include <unistd.h>

#define PAGE 4096ul
#define TRAP_FLAG 0x100

static uint8_t *base;
static size_t length;
static int channel;
static uint8_t *opened[4];
static int n_opened;

static void show(void)
{
	char c = 's';

	if (write(channel, &c, 1) != 1 || read(channel, &c, 1) != 1)
		_exit(3);
}

/* A store across a page's end faults twice before it is done. */
static void on_fault(int sig, siginfo_t *info, void *context)
{
	ucontext_t *u = context;
	uint8_t *at = info->si_addr;

	if (at < base || at >= base + length || n_opened == 4) {
		signal(sig, SIG_DFL);
		return;
	}
	if (!n_opened)
		show();
	opened[n_opened] = base + (size_t)(at - base) / PAGE * PAGE;
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

int stepping_begin(void *from, size_t bytes, int fd)
{
	struct sigaction fault = {.sa_sigaction = on_fault, .sa_flags = SA_SIGINFO};
	struct sigaction trap = {.sa_sigaction = on_trap, .sa_flags = SA_SIGINFO};

	base = from;
	length = bytes;
	channel = fd;
	if (sigaction(SIGSEGV, &fault, NULL) || sigaction(SIGTRAP, &trap, NULL))
		return -1;
	return mprotect(base, length, PROT_READ);
}

int stepping_end(void)
{
	show();
	signal(SIGSEGV, SIG_DFL);
	signal(SIGTRAP, SIG_DFL);
	return mprotect(base, length, PROT_READ | PROT_WRITE);
}
