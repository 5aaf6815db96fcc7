# SPDX-License-Identifier: BSD-3-Clause
"""This machine: its memory, limits, kernel interfaces, and what is installed on it."""
