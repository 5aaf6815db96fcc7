# SPDX-License-Identifier: BSD-3-Clause
"""How a guest gets a device as its disk, and how the disk is taken away again."""
