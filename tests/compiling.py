# SPDX-License-Identifier: BSD-3-Clause
"""What the tests that compile the native parts by hand tell the compiler."""

from pathlib import Path

PACKAGE = Path(__file__).parents[1] / "preswapd"
TMEM = PACKAGE / "tmem"
BLOCK = PACKAGE / "block"
REMOTE = PACKAGE / "remote"
DEVICE = PACKAGE / "preswap" / "device"
IMAGE = PACKAGE / "precache" / "image"
INCLUDES = [f"-I{folder}" for folder in (PACKAGE / "native", TMEM, BLOCK, REMOTE, DEVICE, IMAGE)]
LIBRARIES = ["-llz4", "-lzstd", "-lxxhash", "-lpthread"]


def sources(*folders: Path) -> list[str]:
    """Without what Cython has made."""
    files = [file for folder in folders for file in sorted(folder.glob("*.c"))]
    return [str(file) for file in files if not file.name.startswith("_")]
