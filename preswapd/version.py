# SPDX-License-Identifier: BSD-3-Clause
"""The version, for the package's metadata and for who must not wait until that is read."""

VERSION = "0.1.0"
