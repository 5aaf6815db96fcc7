# SPDX-License-Identifier: BSD-3-Clause
"""A virtual machine that is idle runs on in a fraction of its memory, and gets it back."""
