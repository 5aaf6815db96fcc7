"""preswapd: a swap disk for Linux guests, kept in compressed shared memory of the host."""

__version__ = "0.1.0"
