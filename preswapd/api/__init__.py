# SPDX-License-Identifier: BSD-3-Clause
"""The control API as both ends know it: messages, paths, figures, the operator's client."""
