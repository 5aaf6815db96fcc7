"""The demonstration: a real guest that swaps through preswapd, and what it proves."""
