# SPDX-License-Identifier: BSD-3-Clause
"""The server process: configuration, start, and life inside nbdkit."""
