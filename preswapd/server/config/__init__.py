# SPDX-License-Identifier: BSD-3-Clause
"""The configuration of an instance: its files, the options over them, and both as one file."""
