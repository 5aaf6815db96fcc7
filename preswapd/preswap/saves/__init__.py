# SPDX-License-Identifier: BSD-3-Clause
"""A device's pages leave in a file, and come back from one."""
