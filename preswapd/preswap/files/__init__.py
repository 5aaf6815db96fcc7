# SPDX-License-Identifier: BSD-3-Clause
"""The files of one device: disk file, state bytes, sidecar, and how they reach the disk."""
