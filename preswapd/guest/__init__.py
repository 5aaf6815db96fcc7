# SPDX-License-Identifier: BSD-3-Clause
"""A real Linux guest in QEMU, without root and without an image: for the demo and the tests."""
