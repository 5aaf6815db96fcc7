# SPDX-License-Identifier: BSD-3-Clause
"""Reads of pages that are on disk: from there, and from the store."""

import statistics
import time
from typing import Any

import redis
from redis.cluster import RedisCluster

from benchmarks import load
from benchmarks.load import Load
from benchmarks.remote.cluster import HOST, Cluster
from benchmarks.remote.found import (
    CLUSTER_GET,
    DISK,
    GET,
    STORE,
    faster,
    median_of,
    slower,
)
from benchmarks.remote.swapped import REQUESTS, Swapped
from benchmarks.sections import Figures, Progress
from benchmarks.text import MIB, columns

DEPTHS = (1, 16, 32)
WAYS = (DISK, STORE)
WHO = ("client", "server", "courier", "nodes")


def measure(swapped: Swapped, rounds: int, seconds: float, progress: Progress) -> Figures:
    swapped.fill(at_once=swapped.size)
    at_once = swapped.stored
    swapped.fill()
    found: Figures = {
        "stored_at_once": at_once,
        "stored": swapped.stored,
        "value_bytes": value_bytes(swapped.cluster),
        "reads": {str(depth): {way: [] for way in WAYS} for depth in DEPTHS},
        "gets": {GET: [], CLUSTER_GET: []},
    }
    for number in range(rounds):
        progress(f"remote: reads, round {number + 1} of {rounds}")
        for depth in DEPTHS:
            for way in WAYS:
                swapped.use_store(way == STORE)
                found["reads"][str(depth)][way].append(one(swapped, depth, seconds))
        for name, median in gets(swapped.cluster, seconds).items():
            found["gets"][name].append(median)
    return found


def one(swapped: Swapped, depth: int, seconds: float) -> Figures:
    """Reads a second, latencies and processor time for a read, in microseconds."""
    job = Load(f"depth {depth}", "randread", "--bs=4k --norandommap", depth)
    before, cpu = swapped.remote(), swapped.cpu()
    seen = load.fio(swapped.serving.uri, job, seconds, str(swapped.size))
    cpu = {who: spent - cpu[who] for who, spent in swapped.cpu().items()}
    after = swapped.remote()
    read = seen["read"]
    percentiles = read["clat_ns"]["percentile"]
    many = read["total_ios"]
    cpu["client"] = (seen["usr_cpu"] + seen["sys_cpu"]) / 100 * seen["job_runtime"] / 1000
    return {
        "iops": read["iops"],
        "median": percentiles["50.000000"] / 1000,
        "p99": percentiles["99.000000"] / 1000,
        "from_store": (after["remote_reads"] - before["remote_reads"]) / many,
        "late": (after["remote_late"] - before["remote_late"]) / many,
        "cpu": {who: 1e6 * spent / many for who, spent in cpu.items()},
    }


def gets(cluster: Cluster, seconds: float) -> dict[str, float]:
    """Medians of one GET after the other, in microseconds."""
    node = cluster.nodes[0]
    with (
        redis.Redis(HOST, node.port) as plain,
        RedisCluster(HOST, node.port) as knowing,
    ):
        keys = keys_of(plain)
        return {GET: median(plain, keys, seconds), CLUSTER_GET: median(knowing, keys, seconds)}


def median(client: Any, keys: list[bytes], seconds: float) -> float:
    took = []
    end = time.perf_counter() + seconds
    begun = 0.0
    while begun < end:
        for key in keys:
            begun = time.perf_counter()
            client.get(key)
            took.append(time.perf_counter() - begun)
            if begun > end:
                break
    return 1e6 * statistics.median(took)


def keys_of(client: Any) -> list[bytes]:
    """A thousand of a node's."""
    found: list[bytes] = []
    for key in client.scan_iter(count=1000):
        found.append(key)
        if len(found) >= 1000:
            break
    return found


def value_bytes(cluster: Cluster) -> float:
    node = cluster.nodes[0]
    with redis.Redis(HOST, node.port) as client:
        keys = keys_of(client)
        return statistics.fmean(client.strlen(key) for key in keys) if keys else 0.0


def table(figures: Figures) -> str:
    found = figures["reads"]
    rows = []
    for depth, ways in found["reads"].items():
        for way, runs in ways.items():
            figures_of = (median_of(runs, what) for what in ("iops", "median", "p99"))
            shares = (100 * median_of(runs, what) for what in ("from_store", "late"))
            ratio = f"{faster(figures, int(depth)):.2f}" if way == STORE else ""
            cells = (*(f"{one:.0f}" for one in figures_of), *(f"{one:.1f}" for one in shares))
            rows.append((f"depth {depth}, {NAMES[way]}", *cells, ratio))
    limit = f"{REQUESTS:,} reads a second" if figures["limited"] else "no limit, as none can be set"
    stored, at_once = (100 * found[which] for which in ("stored", "stored_at_once"))
    title = (
        f"4 KiB random reads of {figures['bytes'] / MIB:.0f} MiB on a disk of {limit};"
        f" {stored:.0f} % of the pages in the store ({at_once:.0f} % after one shrink of all),"
        f" {found['value_bytes']:.0f} bytes each, version {figures['store']}"
    )
    heads = ("", "reads/s", "p50 us", "p99 us", "from store %", "late %", "to disk")
    return columns(title, heads, rows)


NAMES = {DISK: "disk alone", STORE: "with the store"}


def costs(figures: Figures) -> str:
    rows = []
    for depth, ways in figures["reads"]["reads"].items():
        for way, runs in ways.items():
            spent = [median_of([run["cpu"] for run in runs], who) for who in WHO]
            cells = (f"{one:.1f}" for one in (*spent, sum(spent)))
            rows.append((f"depth {depth}, {NAMES[way]}", *cells))
    return columns("Processor time a read, us", ("", *WHO, "all"), rows)


def gets_table(figures: Figures) -> str:
    found = figures["reads"]
    rows = [
        (name, f"{statistics.median(runs):.0f}", f"{slower(figures, name):.2f}")
        for name, runs in found["gets"].items()
    ]
    heads = ("", "p50 us", "a read at depth 1 to it")
    return columns("The same values by redis-py, one after the other", heads, rows)
