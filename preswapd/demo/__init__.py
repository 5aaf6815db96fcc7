# SPDX-License-Identifier: BSD-3-Clause
"""The demonstration: a real guest that swaps through preswapd, and what it proves."""
