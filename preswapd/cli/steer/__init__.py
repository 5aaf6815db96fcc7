# SPDX-License-Identifier: BSD-3-Clause
"""What changes a running server: devices, settings, shrink, swapoff."""
