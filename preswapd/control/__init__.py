"""The control API: HTTP and JSON over a Unix socket, both ends of it."""
