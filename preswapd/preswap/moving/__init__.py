# SPDX-License-Identifier: BSD-3-Clause
"""A device moves to another host while its guest does: docs/moving.md."""
