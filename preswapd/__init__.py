"""preswapd: a swap disk for Linux guests, kept in compressed shared memory of the host."""
