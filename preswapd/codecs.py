# SPDX-License-Identifier: BSD-3-Clause
"""The codecs by their names, in the order of enum tmem_compress."""

COMPRESS = ("lz4", "zstd", "none")
DEFAULT_COMPRESS = "lz4"
