# SPDX-License-Identifier: BSD-3-Clause
"""One image: its file, what is cached of it, and the requests of its clients."""
