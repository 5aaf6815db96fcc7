# SPDX-License-Identifier: BSD-3-Clause
"""preswapd: a swap disk for Linux guests, kept in compressed shared memory of the host."""
