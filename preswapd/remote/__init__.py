# SPDX-License-Identifier: BSD-3-Clause
"""The remote tier: pages of the disk files, sealed, in a store in other hosts' memory."""
