# SPDX-License-Identifier: BSD-3-Clause
"""What nbdkit loads."""

from preswapd.server.putting_off import annotations_of, put_off

put_off("inspect", get_annotations=annotations_of)
# With it OpenSSL, for the one that pulls a device over TLS.
put_off("preswapd.preswap.moving.tls")
# Only where a store is configured.
put_off("preswapd.remote.tier")
put_off("preswapd.precache.digests")
put_off("preswapd.precache.sharing")
