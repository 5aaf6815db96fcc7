# SPDX-License-Identifier: BSD-3-Clause
"""Disk images, whose clean pages lie in the memory that swap does not need."""
