# SPDX-License-Identifier: BSD-3-Clause
"""Swap devices: where each page is, requests, disk files, shrink, and the instance."""
