# SPDX-License-Identifier: BSD-3-Clause
"""What nbdkit loads."""

from preswapd.server.putting_off import put_off

put_off("inspect")
