/* SPDX-License-Identifier: BSD-3-Clause */
/* What nbdkit says of the client whose thread asks, which its Python does not hand on. */
#ifndef PRESWAPD_PEER_H
#define PRESWAPD_PEER_H

#include <arpa/inet.h>
#include <netinet/in.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/socket.h>

/* Of nbdkit-plugin(3).  Weak: outside of nbdkit nobody has them. */
int nbdkit_is_tls(void) __attribute__((weak));
int nbdkit_peer_name(struct sockaddr *, socklen_t *) __attribute__((weak));
int64_t nbdkit_peer_pid(void) __attribute__((weak));
void nbdkit_disconnect(int force) __attribute__((weak));   /* from 1.34 on */

enum { PEER_IS_LOCAL = 0, PEER_IS_REMOTE = 1, PEER_IS_GONE = -1 };

static inline bool peer_uses_tls(void)
{
	return nbdkit_is_tls && nbdkit_is_tls() == 1;
}

/* False: this nbdkit cannot. */
static bool peer_drop(void)
{
	if (!nbdkit_disconnect)
		return false;
	nbdkit_disconnect(1);
	return true;
}

/* -1: it is not known, or there is none, as over TCP. */
static int64_t peer_process(void)
{
	return nbdkit_peer_pid ? nbdkit_peer_pid() : -1;
}

static int peer_text(int family, const void *address, char *host)
{
	return inet_ntop(family, address, host, INET6_ADDRSTRLEN) ? PEER_IS_REMOTE : PEER_IS_GONE;
}

/* One that has hung up by now has no name any more: it is not taken for a local one. */
static int peer_address(char *host, uint16_t *port)
{
	union {
		struct sockaddr any;
		struct sockaddr_in v4;
		struct sockaddr_in6 v6;
		struct sockaddr_storage longest;
	} found = { .longest = { 0 } };
	socklen_t length = sizeof(found);

	if (!nbdkit_peer_name || nbdkit_peer_name(&found.any, &length))
		return PEER_IS_GONE;
	switch (found.any.sa_family) {
	case AF_UNIX:
		return PEER_IS_LOCAL;
	case AF_INET:
		*port = ntohs(found.v4.sin_port);
		return peer_text(AF_INET, &found.v4.sin_addr, host);
	case AF_INET6:
		*port = ntohs(found.v6.sin6_port);
		return peer_text(AF_INET6, &found.v6.sin6_addr, host);
	default:
		return PEER_IS_GONE;
	}
}

#endif
