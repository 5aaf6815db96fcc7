# SPDX-License-Identifier: BSD-3-Clause
"""What nbdkit loads."""
