/* SPDX-License-Identifier: BSD-3-Clause */
/* nbdkit's Python glue makes and destroys a thread state around every callback, unless the thread
 * holds one already: one extra PyGILState_Ensure on a worker's first callback keeps it.  It is
 * freed when the thread ends, or each connection would leave 3.5 kB behind. */
#ifndef PRESWAPD_PIN_H
#define PRESWAPD_PIN_H

#include <Python.h>
#include <pthread.h>

static pthread_key_t pin_key;
static _Thread_local int pin_done;

/* The C library has emptied Python's own key by now, so that PyGILState would not find the state:
 * it is taken by its address. */
static void pin_undo(void *state)
{
	if (!Py_IsInitialized())
		return;
	PyEval_RestoreThread(state);
	PyThreadState_Clear(state);
	PyThreadState_DeleteCurrent();
}

static int pin_init(void)
{
	return pthread_key_create(&pin_key, pin_undo);
}

/* With the GIL held. */
static inline void pin_thread(void)
{
	if (pin_done)
		return;
	pin_done = 1;
	if (pthread_setspecific(pin_key, PyThreadState_Get()) == 0)
		PyGILState_Ensure();
}

#endif
