# SPDX-License-Identifier: BSD-3-Clause
"""Section `remote`: pages of a slow disk, read from a store in the memory of other hosts.

All of it on this host: a disk of 3,000 requests a second, a cluster of three nodes on loopback, the
server, its courier, and the client or the guest.
"""

from benchmarks.remote import faults, guest, reads
from benchmarks.remote.client import DEPTH, Client
from benchmarks.remote.cluster import store
from benchmarks.remote.found import CLIENT, GUEST
from benchmarks.remote.guest import GuestReader
from benchmarks.remote.swapped import swapped
from benchmarks.sections import Figures, Progress
from benchmarks.text import MIB

SIZE, QUICK_SIZE = 64 << 20, 4 << 20
ROUNDS, QUICK_ROUNDS = 5, 1
SECONDS, QUICK_SECONDS = 2.0, 0.3
# Of reads after each fault.
FAULT_ROUNDS, FAULT_SECONDS, QUICK_FAULT_SECONDS = 3, 4.0, 1.0
# MiB that a guest's program reads.  A guest feels more of what else the host does than a client.
GUEST_MIB, GUEST_ROUNDS = 32, 5


def measure(progress: Progress, quick: bool) -> Figures:
    size = QUICK_SIZE if quick else SIZE
    rounds, seconds = (QUICK_ROUNDS, QUICK_SECONDS) if quick else (ROUNDS, SECONDS)
    fault_rounds = QUICK_ROUNDS if quick else FAULT_ROUNDS
    whole = faults.whole(QUICK_FAULT_SECONDS if quick else FAULT_SECONDS)
    guest_rounds = QUICK_ROUNDS if quick else GUEST_ROUNDS
    with store() as cluster:
        with swapped(cluster, size) as one:
            found: Figures = {
                "bytes": size,
                "store": cluster.version,
                "limited": one.limited,
                "reads": reads.measure(one, rounds, seconds, progress),
            }
            client = Client(one, whole)
            felt = {CLIENT: faults.measure(one, CLIENT, client, fault_rounds, progress)}
        # A guest whose swap is more than half full writes again what it has only read.
        with swapped(cluster, 2 * GUEST_MIB * MIB) as one, guest.booted(one, GUEST_MIB) as vm:
            reader = GuestReader(one, vm, GUEST_MIB, whole)
            felt[GUEST] = faults.measure(one, GUEST, reader, guest_rounds, progress)
            return found | {"felt": felt, "guest": reader.describe()}


def table(figures: Figures) -> str:
    return "\n\n".join(
        [
            reads.table(figures),
            reads.costs(figures),
            reads.gets_table(figures),
            faults.table(figures, CLIENT, f"4 KiB random reads, depth {DEPTH},"),
            faults.table(figures, GUEST, guest.title(figures["guest"])),
        ]
    )
