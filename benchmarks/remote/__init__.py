# SPDX-License-Identifier: BSD-3-Clause
"""Section `remote`: pages of a slow disk, read from a store in the memory of other hosts.

All of it on this host: a disk of 3,000 requests a second, a cluster of three nodes on loopback, the
server, its courier and the client.
"""

from benchmarks.remote import faults, reads
from benchmarks.remote.cluster import store
from benchmarks.remote.swapped import swapped
from benchmarks.sections import Figures, Progress

SIZE, QUICK_SIZE = 64 << 20, 4 << 20
ROUNDS, QUICK_ROUNDS = 5, 1
SECONDS, QUICK_SECONDS = 2.0, 0.3
# Of reads after each fault.
FAULT_ROUNDS, FAULT_SECONDS, QUICK_FAULT_SECONDS = 3, 4.0, 1.0


def measure(progress: Progress, quick: bool) -> Figures:
    size = QUICK_SIZE if quick else SIZE
    rounds, seconds = (QUICK_ROUNDS, QUICK_SECONDS) if quick else (ROUNDS, SECONDS)
    of_faults = (QUICK_ROUNDS, QUICK_FAULT_SECONDS) if quick else (FAULT_ROUNDS, FAULT_SECONDS)
    with store() as cluster, swapped(cluster, size) as one:
        return {
            "bytes": size,
            "store": cluster.version,
            "limited": one.limited,
            "reads": reads.measure(one, rounds, seconds, progress),
            "faults": faults.measure(one, *of_faults, progress),
        }


def table(figures: Figures) -> str:
    parts = [reads.table(figures), reads.costs(figures), reads.gets_table(figures)]
    return "\n\n".join([*parts, faults.table(figures)])
