# SPDX-License-Identifier: BSD-3-Clause
"""One swap device: where each of its pages is, and the requests of its guest."""
