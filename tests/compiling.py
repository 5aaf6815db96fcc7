# SPDX-License-Identifier: BSD-3-Clause
"""What the tests that compile the native parts by hand tell the compiler."""

from pathlib import Path

PACKAGE = Path(__file__).parents[1] / "preswapd"
TMEM = PACKAGE / "tmem"
DEVICE = PACKAGE / "preswap" / "device"
INCLUDES = [f"-I{folder}" for folder in (PACKAGE / "native", TMEM, DEVICE)]
LIBRARIES = ["-llz4", "-lzstd", "-lxxhash", "-lpthread"]
