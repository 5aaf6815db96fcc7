# SPDX-License-Identifier: BSD-3-Clause
"""What shows something: list, stats, top, metrics."""
