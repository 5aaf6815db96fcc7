# SPDX-License-Identifier: BSD-3-Clause
"""What is wrong on this host, and how to put it right."""
