# SPDX-License-Identifier: BSD-3-Clause
"""So much memory, and who gets how much of it: a floor each, and the rest by weight.

Only numbers go in and come out, here and in policy.py: what they do can be tried for simulated
days.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

MIB = 1 << 20
# What an arena needs for anything: the smallest that a pool's limit may be.
LEAST = 4 * MIB
# Pages that nobody has used for half an hour count a quarter when there is not enough for all.
IDLE_SECONDS = 1800
IDLE_COUNTS = 0.25
# A pool that fills up gets so much of what it takes, and so much besides, before it is full.
WANTS = 0.9  # of its limit
AHEAD, AHEAD_BYTES = 0.25, 64 * MIB


@dataclass(frozen=True)
class Share:
    """What an operator says of one instance; bytes."""

    weight: int = 100
    floor: int = LEAST
    cap: int | None = None
    # What it keeps is elsewhere too: it gets what the others leave.  (A cache of disk images.)
    yields: bool = False


@dataclass(frozen=True)
class Pool:
    """What one instance says of its pool; bytes."""

    used: int
    idle: int = 0  # of that, what nobody has used for half an hour
    pool_limit: int = 1 << 62  # the operator's
    governed: int | None = None  # the governor's, as it is now
    wants: bool = False  # it is nearly at its limit, and its guest goes on to swap out

    @property
    def limit(self) -> int:
        return self.pool_limit if self.governed is None else min(self.pool_limit, self.governed)

    @property
    def excess(self) -> int:
        """What is still to go to disk."""
        return max(0, self.used - self.limit)


def bounds(share: Share, pool: Pool) -> tuple[int, int]:
    """The floor and the cap in force: what the operator set for the pool counts everywhere."""
    cap = pool.pool_limit if share.cap is None else min(share.cap, pool.pool_limit)
    cap = max(cap, LEAST)
    return min(max(share.floor, LEAST), cap), cap


def divide(total: int, shares: Mapping[str, Share], pools: Mapping[str, Pool]) -> dict[str, int]:
    """Each one's limit, from its floor to its cap.  Where the floors alone are more than there is,
    all get their floor."""
    between = {name: bounds(shares[name], pool) for name, pool in pools.items()}
    limits = {name: floor for name, (floor, _) in between.items()}
    for wanted in rounds(shares, pools):
        ends = {name: min(wanted[name], between[name][1]) for name in wanted}
        weights = {name: shares[name].weight for name in ends}
        give(total, limits, ends, weights)
    # Numbers that people read; a floor is kept to the byte.
    return {name: max(between[name][0], at // MIB * MIB) for name, at in limits.items()}


def rounds(shares: Mapping[str, Share], pools: Mapping[str, Pool]) -> Iterable[Mapping[str, float]]:
    """Up to what each is given, turn by turn, as long as there is any: what is in use, and then
    what is idle too; whoever yields comes after the others; at last up to the caps."""
    for yields in (False, True):
        those = {name: pool for name, pool in pools.items() if shares[name].yields is yields}
        yield {name: needed(pool, taxed(pool)) for name, pool in those.items()}
        yield {name: needed(pool, pool.used) for name, pool in those.items()}
    yield {name: ahead(pool.used) for name, pool in pools.items()}
    yield dict.fromkeys(pools, float("inf"))


def taxed(pool: Pool) -> float:
    idle = min(pool.idle, pool.used)
    return pool.used - (1 - IDLE_COUNTS) * idle


def needed(pool: Pool, used: float) -> float:
    """What it takes, and somewhat more where it is short of it: what is given so and not taken is
    not taken away again, or it would come and go."""
    if pool.wants:
        return ahead(used)
    return min(ahead(used), max(used, pool.governed or 0))


def ahead(used: float) -> float:
    return used * (1 + AHEAD) + AHEAD_BYTES


def give(
    total: int, limits: dict[str, int], ends: Mapping[str, float], weights: Mapping[str, int]
) -> None:
    """Raises the limits towards their ends: of what is left of the total, each gets what its weight
    says, and what one cannot use the others get."""
    open_ends = {name for name in ends if limits[name] < ends[name]}
    left = total - sum(limits.values())
    while open_ends and left > 0:
        whole = sum(weights[name] for name in open_ends)
        # Whoever reaches its end first leaves the rest to the others.
        full = {
            name for name in open_ends if ends[name] - limits[name] <= left * weights[name] / whole
        }
        for name in full or open_ends:
            end = ends[name] if full else limits[name] + left * weights[name] / whole
            step = min(int(end) - limits[name], left)
            limits[name] += max(0, step)
        if not full:
            return
        open_ends -= full
        left = total - sum(limits.values())
