# SPDX-License-Identifier: BSD-3-Clause
"""Speed and memory, measured against named peers in the same run."""
