# SPDX-License-Identifier: BSD-3-Clause
"""preswapctl: what the operator types, and nothing that the server needs."""
