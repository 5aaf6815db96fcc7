# SPDX-License-Identifier: BSD-3-Clause
"""The courier: a process beside the server that carries sealed pages to a Redis or Valkey store.

It is a process of its own so that it never holds the interpreter's lock of a server's requests, and
so that nothing a store does to a client can end a server.  All that it is told can be forgotten:
where it ends, hangs or is started anew, reads come from the disk.
"""
