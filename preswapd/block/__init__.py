# SPDX-License-Identifier: BSD-3-Clause
"""What any NBD export needs of its requests: marks, flights, buffers, latencies, connections."""
