# SPDX-License-Identifier: BSD-3-Clause
"""What the governor did and why, in sentences for somebody who meets it for the first time."""

from collections.abc import Iterator, Mapping

from preswapd.govern.policy import Decision, Reason, Rules
from preswapd.govern.shares import IDLE_COSTS, IDLE_SECONDS, Pool, Share, bounds, taxed
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
            return f"an instance was not governed yet ({seen})"
        case Reason.BEHIND:
            return (
                f"the host is still short of {format_size(one.reserve - one.available)} ({seen}):"
                f" {format_size(one.excess)} are on their way to disk, which takes its time"
            )
        case Reason.FLOORS:
            return (
                f"the host is short of {format_size(one.reserve - one.available)} ({seen}), and"
                " the pools are at their floors: other programs have the memory"
            )


def consequence(one: Decision) -> Iterator[str]:
    yield f"pools take {format_size(one.used)} and may take {format_size(one.total)}"
    if one.limits:
        yield ", ".join(
            f"{name} {size_or_none(one.before[name])} -> {format_size(limit)}"
            for name, limit in sorted(one.limits.items())
        )
        if one.excess:
            yield f"{format_size(one.excess)} go to disk"


def size_or_none(limit: int | None) -> str:
    return "no limit" if limit is None else format_size(limit)


def why(name: str, rules: Rules, pools: Mapping[str, Pool]) -> str:
    """Why one pool may take what it may."""
    pool, share = pools[name], rules.share(name)
    if pool.governed is None:
        return "no limit is set yet"
    floor, cap = bounds(share, pool)
    if pool.governed >= cap:
        owner = "its cap" if share.cap is not None and share.cap <= pool.pool_limit else POOL_LIMIT
        return f"it may take as much as {owner} says, because there is enough"
    if pool.governed <= floor:
        return "it is at its floor: there is no memory beyond the floors"
    return f"{standing(pool)}. {weighed(name, rules, pools)}"


POOL_LIMIT = "its operator's pool_limit"


def standing(pool: Pool) -> str:
    takes = f"it takes {format_size(pool.used)}"
    if pool.excess:
        return f"{takes}, and {format_size(pool.excess)} of that are going to disk"
    if pool.wants:
        return f"{takes} and would take more"
    return f"{takes}, and does not want more now"


def weighed(name: str, rules: Rules, pools: Mapping[str, Pool]) -> str:
    share = rules.share(name)
    whole = sum(rules.share(other).weight for other in pools)
    text = f"Its weight is {share.weight} of {whole}"
    if share.floor > bounds(Share(), pools[name])[0]:
        text += f", above its floor of {format_size(share.floor)}"
    text += "; what others do not use is added to that"
    if pools[name].idle:
        text += (
            f". Nobody has used {format_size(pools[name].idle)} of it for"
            f" {IDLE_SECONDS / 60:.0f} minutes: where there is not enough for all, such a page"
            f" costs {IDLE_COSTS}, and the weight counts as {taxed(share.weight, pools[name]):.0f}"
        )
    return text
