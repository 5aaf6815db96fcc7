# SPDX-License-Identifier: BSD-3-Clause
"""The server's end of the control API: HTTP and JSON over a Unix socket."""
