# SPDX-License-Identifier: BSD-3-Clause
"""What nbdkit loads."""

from preswapd.server.putting_off import put_off

put_off("inspect")
# From Python 3.12 on that is used at once, and hardly uses these: 0.85 MiB with 3.13.
put_off("ast")
put_off("linecache")
put_off("tokenize")
# With it OpenSSL, for the one that pulls a device over TLS.
put_off("preswapd.preswap.moving.tls")
# Only where a store is configured.
put_off("preswapd.remote.tier")
put_off("preswapd.precache.digests")
put_off("preswapd.precache.sharing")
