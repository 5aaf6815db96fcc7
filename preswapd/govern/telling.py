# SPDX-License-Identifier: BSD-3-Clause
"""What the governor did and why, in sentences for somebody who meets it for the first time."""

from collections.abc import Iterator, Mapping

from preswapd.govern.policy import Decision, Reason, Rules
from preswapd.govern.shares import IDLE_COSTS, IDLE_SECONDS, MIB, WANTS, Pool, bounds, taxed
from preswapd.units import format_size


def sentence(decision: Decision) -> str:
    """One line for the log: what was seen, what follows, and what was set."""
    parts = [beginning(decision), *consequence(decision)]
    return "; ".join(parts)


def beginning(one: Decision) -> str:
    available, reserve = format_size(one.available), format_size(one.reserve)
    seen = f"{available} available, reserve {reserve}"
    match one.reason:
        case Reason.SHORT:
            short = format_size(one.reserve - one.available)
            return f"the host is short of {short} ({seen}): pools give it back now"
        case Reason.NARROW:
            return f"other programs have taken memory ({seen}): pools may not grow into it"
        case Reason.PRESSURE:
            return (
                f"programs wait for memory {one.pressure or 0:.1f} % of the time ({seen}): pools"
                " give back a quarter"
            )
        case Reason.GROWTH:
            return f"nothing was short for a while ({seen}): pools may take an eighth more of it"
        case Reason.SHARES:
            return f"one pool needs more and another less ({seen})"
        case Reason.START:
            new = [name for name, limit in sorted(one.before.items()) if limit is None]
            return f"not governed before: {', '.join(new)} ({seen})"
        case Reason.BEHIND:
            return (
                f"the host is still short of {format_size(one.reserve - one.available)} ({seen}):"
                f" {on_their_way(one)}"
            )
        case Reason.FLOORS:
            return (
                f"the host is short of {format_size(one.reserve - one.available)} ({seen}), and"
                " the pools are at their floors: other programs have the memory"
            )


def consequence(one: Decision) -> Iterator[str]:
    yield f"the pools took {format_size(one.used)}, and may take {format_size(one.total)} together"
    if one.limits:
        yield ", ".join(
            f"{name} {size_or_none(one.before[name])} -> {format_size(limit)}"
            for name, limit in sorted(one.limits.items())
        )
        if one.dropped:
            yield f"{format_size(one.dropped)} above these limits are of images, and dropped"
        if to_disk := one.excess - one.dropped:
            yield f"{format_size(to_disk)} above these limits go to disk"


def on_their_way(one: Decision) -> str:
    to_disk, dropped = format_size(one.excess - one.dropped), format_size(one.dropped)
    if one.dropped == one.excess:
        return f"{dropped} of images are being dropped"
    also = f", and {dropped} of images are being dropped" if one.dropped else ""
    return f"{to_disk} are on their way to disk, which takes its time{also}"


def size_or_none(limit: int | None) -> str:
    return "no limit" if limit is None else format_size(limit)


def why(name: str, rules: Rules, pools: Mapping[str, Pool], total: int) -> str:
    """Why one pool may take what it may; `total` is what all may take together."""
    pool, share = pools[name], rules.share(name)
    if pool.governed is None:
        return "no limit is set yet"
    if pool.yields:
        return (
            f"it takes {format_size(pool.used)} for disk images, which lie on disk too: it gets"
            " what the others leave, and gives back before they do"
        )
    floor, cap = bounds(share, pool)
    if pool.governed >= cap:
        owner = "its cap" if share.cap is not None and share.cap <= pool.pool_limit else POOL_LIMIT
        return f"{standing(pool)}. That is as much as {owner} says: there is enough for all"
    if pool.governed <= floor:
        reason = "there is not more for it" if pool.used >= floor * WANTS else LATER
        return f"{standing(pool)}. That is its floor: {reason}"
    part = part_of(name, rules, pools, total)
    text = f"{standing(pool)}. {weighed(name, rules, pools, total)}"
    if abs(pool.governed - part) <= max(MIB, part // 100):
        return text
    if pool.governed > part:
        return f"{text}. It has more, because others do not use all of theirs"
    return f"{text}. It has less, because it does not need all of it and others do"


LATER = "others need the rest, and it gets more when it fills up"
POOL_LIMIT = "its operator's pool_limit"


def standing(pool: Pool) -> str:
    takes = f"it takes {format_size(pool.used)}"
    if to_disk := pool.excess - pool.dropped:
        return f"{takes}, of which {format_size(to_disk)} are going to disk"
    if pool.excess:
        return f"{takes}, of which {format_size(pool.excess)} are of images, and being dropped"
    if pool.wants:
        return f"{takes} and would take more"
    if pool.used >= pool.limit * WANTS:
        return f"{takes}, and what its guest swaps out beyond its limit goes to disk"
    return f"{takes} and does not need more now"


def weighed(name: str, rules: Rules, pools: Mapping[str, Pool], total: int) -> str:
    share, pool = rules.share(name), pools[name]
    weights = sum(taxed(rules.share(other).weight, pools[other]) for other in pools)
    own = taxed(share.weight, pool)
    text = ""
    if pool.idle:
        text = (
            f"Nobody has used {format_size(pool.idle)} of it for {IDLE_SECONDS / 60:.0f} minutes,"
            f" and such a page costs as much as {IDLE_COSTS}: its weight of {share.weight} counts"
            f" as {own:.0f}. "
        )
    floor, _ = bounds(share, pool)
    part, rest = part_of(name, rules, pools, total), beyond_floors(rules, pools, total)
    return (
        f"{text}Its part is {format_size(part)}: its floor of {format_size(floor)}, and {own:.0f}"
        f" of {weights:.0f} by weight of the {format_size(rest)} beyond all floors"
    )


def part_of(name: str, rules: Rules, pools: Mapping[str, Pool], total: int) -> int:
    """What it would have if all were short of memory."""
    weights = {other: taxed(rules.share(other).weight, pool) for other, pool in pools.items()}
    floor, _ = bounds(rules.share(name), pools[name])
    rest = beyond_floors(rules, pools, total)
    return floor + int(rest * weights[name] / sum(weights.values()))


def beyond_floors(rules: Rules, pools: Mapping[str, Pool], total: int) -> int:
    floors = (bounds(rules.share(name), pool)[0] for name, pool in pools.items())
    return max(0, total - sum(floors))
