"""The server's end of the control API: HTTP and JSON over a Unix socket."""
