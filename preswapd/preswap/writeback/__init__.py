# SPDX-License-Identifier: BSD-3-Clause
"""Pages go from memory to disk: when, which, and how many at once."""
