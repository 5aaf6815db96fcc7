# SPDX-License-Identifier: BSD-3-Clause
"""doctor's checks of the remote tier: its store, what that is told to keep, and how fast it is."""

import stat
from collections.abc import Iterator, Mapping
from pathlib import Path
from shlex import quote
from typing import Any
from urllib.parse import unquote

from preswapd.api.client import Client
from preswapd.api.messages import RemoteStatus
from preswapd.api.settings import VM_REMOTE
from preswapd.cli.doctor.finding import FIX, NOTE, OK, Finding
from preswapd.cli.typed import as_root
from preswapd.errors import RefusedError
from preswapd.units import exact_milliseconds, format_size

# It keeps what it has, and takes nothing more once it is full.
EVICTS_NOTHING = "noeviction"
# Of the timeout, what an answer may take without load: with load it takes several times as long.
MUCH = 0.5
# What the courier was tried with; older ones have other names for what it asks.
OLDEST = (6, 2)
GUIDE = "docs/guides/store.md"
# What brings a node back, by what it, its host or OpenSSL says.
WAYS_BACK = {
    ("NOAUTH", "WRONGPASS", "username-password", "password-file"): (
        "put its password into password-file of [remote]: it is read before each attempt"
    ),
    ("without any password",): "it has no password: give it one, or leave out password-file",
    ("DENIED",): "give it a password, requirepass, and write that into password-file of [remote]",
    ("NOPERM",): "its user must be let: GET, SET, DEL, PING, INFO and CLUSTER SLOTS of preswapd:*",
    ("SSL", "X509", "TLS", "violation of protocol"): (
        f"see the url and ca, cert and key of [remote]: {GUIDE}"
    ),
    ("DB index", "SELECT"): "see the number of a database behind the hosts in url of [remote]",
    ("Protocol error", "unknown command"): "see url of [remote]: another program listens there",
    ("later than",): "where the disk is faster than that, do without it; else raise timeout",
    ("CLUSTERDOWN",): f"mend the cluster: {GUIDE}",
}
# Why one that is there takes no pages; what is full because it evicts nothing is told of as that.
FULL = "OOM"
WAYS_TO_TAKE = {
    ("READONLY",): "it is a replica: name its master in url of [remote], or end replicaof",
    ("MISCONF",): 'it cannot write its file, which nobody needs: save ""',
    **WAYS_BACK,
}


def check_remote(name: str, client: Client, use_it: str) -> Iterator[Finding]:
    """`name`: of the instance, as findings call it; `use_it`: the command that switches it on."""
    try:
        status = client.remote()
    except RefusedError:  # it was not restarted since it was upgraded
        return
    if status.url is not None:
        yield from check_store(f"{name}, store", status, use_it)


def check_store(name: str, status: RemoteStatus, use_it: str) -> Iterator[Finding]:
    if status.error is not None:
        mend = "put that right, and restart the server, which loses no page"
        yield Finding(FIX, name, f"it is not used: {status.error}", mend)
        return
    if status.image_error is not None:
        mend = "put that right, and restart the server, which loses no page"
        yield Finding(FIX, name, f"images are not shared: {status.image_error}", mend)
    if not status.used:
        text = f"it is switched off: {VM_REMOTE} is 0"
        yield Finding(NOTE, name, text, "to use it again", use_it)
    if status.courier is None:
        why = status.courier_error or "it has not begun yet"
        yield Finding(
            FIX,
            name,
            f"there is no courier to it now, {why}",
            "the server's log has its words; another one is started within a minute",
        )
        return
    if status.store is None:
        yield Finding(NOTE, name, f"{status.url} is being looked for", "run it again in a moment")
        return
    yield from check_key(name, Path(status.key_file))
    yield from check_nodes(name, status, status.store)


def check_key(name: str, path: Path) -> Iterator[Finding]:
    """It was good when the server started."""
    try:
        mode = path.stat().st_mode
    except PermissionError:  # of a directory: others have no way to it either
        return
    except OSError as error:
        text = f"{path}: {error.strerror}: the next start makes another key"
        yield Finding(NOTE, name, text)
        return
    if mode & (stat.S_IRWXO | stat.S_IWGRP):
        text = f"{path} can be read or changed by others, and so what is in the store"
        mend = "close it; a restart without the file makes a new key"
        yield Finding(FIX, name, text, mend, as_root(f"chmod o=,g-w {quote(str(path))}"))


def check_nodes(name: str, status: RemoteStatus, store: Mapping[str, Any]) -> Iterator[Finding]:
    nodes = store.get("nodes") or []
    if not nodes:
        why = store.get("error") or "no answer"
        yield away(name, str(status.url), str(why))
    for node in nodes:
        if node.get("up"):
            yield from check_node(name, node, status)
        else:
            yield away(name, str(node.get("address")), str(node.get("error") or "no answer"))
    # Of the store as a whole; what a node says is said of that.
    why = store.get("error")
    if nodes and why and why not in {node.get("error") for node in nodes}:
        text = f"{status.url}: {why}: those pages come from disk"
        yield Finding(FIX, name, text, said_of(WAYS_BACK, why) or f"mend the cluster: {GUIDE}")
    # Of nodes that are all away it is said already.
    if status.open and any(node.get("up") for node in nodes):
        wait = exact_milliseconds(status.timeout)
        text = f"three reads in a row got no answer within {wait}: it is left alone for a moment"
        yield Finding(NOTE, name, text)


def away(name: str, address: str, why: str) -> Finding:
    text = f"{address} is away, {why}: pages come from disk"
    return Finding(FIX, name, text, way_back(why))


def way_back(why: str) -> str:
    default = f"bring it, or the way to it, back; a unit needs a drop-in to reach it, {GUIDE}"
    return said_of(WAYS_BACK, why) or default


def said_of(ways: Mapping[tuple[str, ...], str], why: str) -> str | None:
    return next((way for words, way in ways.items() if any(word in why for word in words)), None)


def check_node(name: str, node: Mapping[str, Any], status: RemoteStatus) -> Iterator[Finding]:
    address = str(node["address"])
    milliseconds = (node.get("latency_us") or 0) / 1000  # 0: not known yet
    what = f"{node.get('server')} {node.get('version')}"
    used = f"{format_size(node.get('used_memory') or 0)} in use"
    took = exact_milliseconds(milliseconds)
    answers = f"answers in {took}" if milliseconds else "answers"
    yield Finding(OK, name, f"{address}, {what}, {used}, {answers}")
    yield from check_version(name, address, node)
    yield from check_memory(name, address, node, status)
    yield from check_word(name, address, node)
    if milliseconds > MUCH * status.timeout:
        wait = exact_milliseconds(status.timeout)
        text = f"{address} takes {took} for an answer, and a read waits for {wait} at most"
        mend = "where the disk is faster than that, do without it; else raise timeout in [remote]"
        yield Finding(NOTE, name, text, mend)


def check_version(name: str, address: str, node: Mapping[str, Any]) -> Iterator[Finding]:
    words = str(node.get("version") or "").split(".")
    found = tuple(int(word) for word in words[:2] if word.isdigit())
    if node.get("server") == "redis" and len(found) == 2 and found < OLDEST:
        oldest = ".".join(map(str, OLDEST))
        text = f"{address} is Redis {node['version']}, and this was tried with {oldest} and newer"
        yield Finding(NOTE, name, text, "upgrade it, or install Valkey")


def check_word(name: str, address: str, node: Mapping[str, Any]) -> Iterator[Finding]:
    """What it refused last, though it is there: a set, or a get."""
    word = str(node.get("error") or "")
    if not word or (word.startswith(FULL) and node.get("policy") == EVICTS_NOTHING):
        return
    mend = said_of(WAYS_TO_TAKE, word)
    yield Finding(FIX if mend else NOTE, name, f"{address} is there, but: {word}", mend)


def check_memory(
    name: str, address: str, node: Mapping[str, Any], status: RemoteStatus
) -> Iterator[Finding]:
    """Whether it evicts, and when."""
    policy, most = node.get("policy"), node.get("maxmemory")
    if policy is None or most is None:  # it does not tell everybody
        return
    if not most:
        text = f"{address} has no maxmemory: it grows until its host is short of memory"
        mend = "say how much it may take, here as an example"
        command = set_in(node, status, "maxmemory", "8gb")
        yield Finding(FIX, name, text, mend, command)
    if policy == EVICTS_NOTHING:
        text = f"{address} evicts nothing: once it is full it takes no page more until some expire"
        mend = "let it drop what is read least"
        command = set_in(node, status, "maxmemory-policy", "allkeys-lru")
        yield Finding(FIX if most else NOTE, name, text, mend, command)


def set_in(node: Mapping[str, Any], status: RemoteStatus, key: str, value: str) -> str:
    """Until that node ends; its configuration file says it for good."""
    words = ["valkey-cli" if node.get("server") == "valkey" else "redis-cli"]
    words += [*place_of(str(node["address"])), *greeting(status), "config", "set", key, value]
    line = " ".join(map(quote, words))
    if status.password_file is not None:
        # Valkey's knows that name, too; as an option ps would show the password.
        line = f"REDISCLI_AUTH=$(cat {quote(status.password_file)}) {line}"
    # Such files are not for everybody.
    return as_root(line) if status.password_file or status.key else line


def place_of(address: str) -> list[str]:
    if address.startswith("/"):
        return ["-s", address]
    host, _, port = address.rpartition(":")
    return ["-h", host.strip("[]"), "-p", port]


def greeting(status: RemoteStatus) -> Iterator[str]:
    """How it lets us in, but for the password."""
    scheme, _, rest = str(status.url).partition("://")
    if user := rest.partition("/")[0].rpartition("@")[0]:
        yield from ("--user", unquote(user))
    if scheme == "rediss":
        yield "--tls"
        for option, path in (("cacert", status.ca), ("cert", status.cert), ("key", status.key)):
            if path is not None:
                yield from (f"--{option}", path)
