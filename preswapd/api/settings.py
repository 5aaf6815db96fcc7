# SPDX-License-Identifier: BSD-3-Clause
"""Every setting once: what it is called, what it may be, what it means, and where it may be said.

A setting is a value that an operator gives to an instance, or to each of its devices.  There are
three places to say it: a configuration file and an option of `preswapd serve`, which count from the
next start on, and sysctl, which counts at once.  A row here is all that those places know of a
setting: they make, check, show and explain their keys and options from it.

It is one table for both ends of the control API, although `preswapctl` needs only the keys of
sysctl: a setting that may be said in all three places means the same in each.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from enum import Flag, auto

from preswapd.api.kinds import (
    ADMISSION,
    AGE,
    AGE_OR_AUTO,
    BOOLEAN,
    CACHE_SIZE,
    CODEC,
    DEVICE_SIZE,
    DIRECTORY,
    FILE,
    FLAG,
    GOVERNED,
    INSTANCE_NAME,
    LISTEN,
    PAGES,
    POOL_SIZE,
    RATE,
    RECOMPRESS_CODEC,
    ROOM,
    SIZE,
    STORE_URL,
    THREADS,
    TIME_TO_LIVE,
    TLS_MODE,
    WAIT,
    Kind,
    or_word,
)
from preswapd.codecs import DEFAULT_COMPRESS
from preswapd.paths import DEFAULT_INSTANCE

# What sysctl's keys begin with, and the text that brings back what the configuration says.
PREFIX = "preswap."
DEFAULT = "default"
# What an operator sets and reads is a number of pages, of all devices or of vm.preswap.DEVICE.
VM_PRESWAP = "vm.preswap"
# Whether the remote tier is used, where there is one.
VM_REMOTE = "vm.remote"
# Of a device's quota: more pages than any device has.
UNLIMITED = "unlimited"
NO_LIMIT = (1 << 64) - 1


class Place(Flag):
    """Where a setting may be said."""

    FILE = auto()
    OPTION = auto()
    SYSCTL = auto()


START = Place.FILE | Place.OPTION
EVERYWHERE = START | Place.SYSCTL


@dataclass(frozen=True)
class Setting:
    """One setting: a row of the tables below."""

    key: str  # in a file
    kind: Kind
    places: Place
    meaning: str  # a sentence without its capital letter and its full stop
    default: str = ""  # in words; none: it must be given
    table: str = ""  # in which table of a file the key stands
    sysctl: str = ""  # sysctl's key, where that is not made of the instance's name

    @property
    def at(self) -> tuple[str, ...]:
        """Where a file has it."""
        return (self.table, self.key) if self.table else (self.key,)

    @property
    def name(self) -> str:
        """The option, without its dashes."""
        return "-".join(self.at)

    @property
    def parameter(self) -> str:
        """In Python, and at the end of sysctl's key."""
        return self.name.replace("-", "_")

    @property
    def help(self) -> str:
        default = f"Default: {self.default}." if self.default else "Required."
        return f"{self.meaning[0].upper()}{self.meaning[1:]}. {default}"

    def sysctl_key(self, instance: str, device: str | None = None) -> str:
        if self.sysctl:
            return self.sysctl
        owner = instance if device is None else f"{instance}.{device}"
        return f"{PREFIX}{owner}.{self.parameter}"


def said_in(place: Place, settings: Iterable[Setting]) -> list[Setting]:
    return [setting for setting in settings if place in setting.places]


POOL_LIMIT = Setting(
    "pool-limit",
    POOL_SIZE,
    Place.SYSCTL,
    "bytes of host memory that the pool may take; if it takes more, the coldest pages move to disk",
    "pool-size",
)
GOVERNED_LIMIT = Setting(
    "governed-limit",
    GOVERNED,
    Place.SYSCTL,
    "bytes of host memory that `preswapd govern` lets the pool take; the lower of it and pool_limit"
    " holds; off: pool_limit alone",
    "off",
)
FROZEN = Setting(
    "frozen",
    FLAG,
    Place.SYSCTL,
    "1: new pages go to disk, and those in tmem stay there; 0: tmem takes new pages",
    "0",
)
# What an instance does by itself with pages in memory: `preswapd/preswap/policy.py`.
POLICY = (
    Setting(
        "room",
        ROOM,
        EVERYWHERE,
        "how much of the pool's limit is kept free for new pages, from 1% to 50%, or off; large and"
        " long unused pages move to disk for it",
        "5%",
        table="writeback",
    ),
    Setting(
        "idle",
        AGE_OR_AUTO,
        EVERYWHERE,
        "how long a page must be unused to move to disk unasked, such as 30m; auto: the shortest"
        " time after which hardly any is read back; off: never",
        "off",
        table="writeback",
    ),
    Setting(
        "rate",
        RATE,
        EVERYWHERE,
        "the most bytes a second that move to disk for writeback-idle, because disks wear; off: no"
        " limit",
        "32M",
        table="writeback",
    ),
    Setting(
        "after",
        AGE,
        EVERYWHERE,
        "how long a page must be unused to be compressed once more, with recompress-codec, such as"
        " 10m; off: never",
        "10m",
        table="recompress",
    ),
    Setting(
        "codec",
        RECOMPRESS_CODEC,
        EVERYWHERE,
        "what long unused pages are compressed with: zstd, lz4, or off (they stay as they are)",
        "zstd",
        table="recompress",
    ),
)
# Of clients at `listen` alone; those of the Unix socket need none of it.
TLS = (
    Setting(
        "mode",
        TLS_MODE,
        START,
        "how clients of `listen` show that they may come in: x509, with certificates, or psk, with"
        " keys; then all they say is encrypted, and any address may be served",
        "none, and no TLS",
        table="tls",
    ),
    Setting(
        "certificates",
        DIRECTORY,
        START,
        "with x509 the directory of ca-cert.pem, server-cert.pem, server-key.pem and, if there is"
        " one, ca-crl.pem; every certificate that the CA has signed lets its owner in",
        "none",
        table="tls",
    ),
    Setting(
        "psk-file",
        FILE,
        START,
        "with psk the file of keys, a line NAME:KEY for each client",
        "none",
        table="tls",
    ),
)
# A store in memory of other hosts, beside the disk files: a read cache of what is in them.
REMOTE = (
    Setting(
        "url",
        STORE_URL,
        START,
        "the store of the remote tier: redis:// or rediss:// (with TLS) and [USER@]HOST[:PORT],"
        " several hosts separated by commas, of a cluster some of them; or unix://PATH",
        "none, and no remote tier",
        table="remote",
    ),
    Setting(
        "password-file",
        FILE,
        START,
        "the file of the store's password, which others cannot read",
        "none",
        table="remote",
    ),
    Setting(
        "key-file",
        FILE,
        START,
        "the file of the key that pages in the store are sealed with, 32 bytes that others cannot"
        " read; it is made where it is missing",
        "remote.key in state-dir",
        table="remote",
    ),
    Setting(
        "image-key-file",
        FILE,
        START,
        "the file of the key that pages of read-only images are shared with, 32 bytes that others"
        " cannot read, the same on all hosts that share them; it is not made",
        "none, and images are not shared",
        table="remote",
    ),
    Setting(
        "ca",
        FILE,
        START,
        "with rediss:// the certificate of whoever has signed the store's",
        "those that the host trusts",
        table="remote",
    ),
    Setting(
        "cert",
        FILE,
        START,
        "with rediss:// the certificate that the store asks of its clients",
        "none",
        table="remote",
    ),
    Setting("key", FILE, START, "the key of that certificate", "none", table="remote"),
    Setting(
        "timeout",
        WAIT,
        START,
        "how long a read waits for the store before it goes to the disk file, from 0.1ms to 1s",
        "5ms",
        table="remote",
    ),
    Setting(
        "max",
        SIZE,
        START,
        "the most bytes of the store that devices' pages may take, as far as the server knows;"
        " pages of shared images are not counted; 0: no limit but the store's own",
        "0",
        table="remote",
    ),
    Setting(
        "ttl",
        TIME_TO_LIVE,
        START,
        "how long the store keeps a page",
        "1d",
        table="remote",
    ),
)
REMOTE_USED = Setting(
    "remote",
    FLAG,
    Place.SYSCTL,
    "1: pages that move to disk are also set in the store of the remote tier, and are read from"
    " there; 0: they are not",
    "1, or 0 without a store",
    sysctl=VM_REMOTE,
)
INSTANCE = (
    Setting(
        "instance",
        INSTANCE_NAME,
        START,
        "the instance's name; if a file and the option both give it, they must agree",
        DEFAULT_INSTANCE,
    ),
    Setting(
        "runtime-dir",
        DIRECTORY,
        START,
        "the directory of the sockets nbd.sock and control.sock",
        "/run/preswapd/INSTANCE for root",
    ),
    Setting(
        "shm-dir",
        DIRECTORY,
        START,
        "the directory of the pages in memory, on a tmpfs",
        "/dev/shm/preswapd-INSTANCE for root",
    ),
    Setting(
        "state-dir",
        DIRECTORY,
        START,
        "the directory of the disk files",
        "/var/lib/preswapd/INSTANCE for root",
    ),
    Setting(
        "pool-size",
        POOL_SIZE,
        START,
        "the most host memory that pages may take, compressed and all included; at least 4M",
    ),
    Setting(
        "host-reserve",
        SIZE,
        START,
        "memory that stays free on the host: the pool does not grow while less is available",
        "5 % of the host's memory, at least 512M",
    ),
    Setting(
        "shm-reserve",
        SIZE,
        START,
        "memory that stays free in the file system of shm-dir, for other programs that use it: the"
        " pool does not grow while less is free",
        "5 % of its size",
    ),
    Setting(
        "compress",
        CODEC,
        START,
        "how pages are compressed: lz4 (fast), zstd (denser, slower) or none",
        DEFAULT_COMPRESS,
    ),
    Setting(
        "threads",
        THREADS,
        START,
        "worker threads for each connection, from 1 to 256",
        "16, or 1 where nbdkit is older than 1.33.10",
    ),
    Setting(
        "listen",
        LISTEN,
        START,
        "an address on which NBD is served over TCP too; only loopback addresses without tls-mode",
        "none",
    ),
    *TLS,
    *REMOTE,
    REMOTE_USED,
    POOL_LIMIT,
    GOVERNED_LIMIT,
    FROZEN,
    *POLICY,
)
QUOTA = Setting(
    "quota",
    or_word(PAGES, UNLIMITED, NO_LIMIT),
    Place.FILE | Place.SYSCTL,
    "how many pages of the device may be in tmem, or unlimited; above it, the coldest pages and new"
    " ones go to disk",
    UNLIMITED,
)
DEVICE = (
    Setting(
        "size",
        DEVICE_SIZE,
        Place.FILE,
        "the size of the disk that the guest sees; a multiple of 4096, at least 64K",
    ),
    Setting(
        "compress",
        CODEC,
        Place.FILE | Place.SYSCTL,
        "how new pages of the device are compressed: lz4, zstd or none",
        "the instance's",
    ),
    QUOTA,
)
IMAGE = (
    Setting(
        "path",
        FILE,
        Place.FILE,
        "the raw disk image, a file or a block device, that clients read; a multiple of 512 bytes",
    ),
    Setting(
        "writable",
        BOOLEAN,
        Place.FILE,
        "true: it is the disk of one guest, which may write to it, and nobody else may use it"
        " meanwhile",
        "false",
    ),
    Setting(
        "compress",
        CODEC,
        Place.FILE,
        "how pages of the image are compressed in memory: lz4, zstd or none",
        "the instance's",
    ),
    Setting(
        "cache",
        CACHE_SIZE,
        Place.FILE,
        "the most memory of the pool that pages of the image may take, at least 1M; what is cached"
        " beyond it takes the place of the image's own oldest pages",
        "what swap and other images leave",
    ),
    Setting(
        "admit",
        ADMISSION,
        Place.FILE,
        "at which read a page is cached: first, or second, so that what is read once, as by a"
        " backup, takes no memory",
        "first",
    ),
)


def sysctl_rows() -> Iterator[tuple[str, Setting]]:
    """The settings of sysctl, under their keys as they are written in documents."""
    for setting in said_in(Place.SYSCTL, INSTANCE):
        yield setting.sysctl_key("INSTANCE"), setting
    for setting in said_in(Place.SYSCTL, DEVICE):
        yield setting.sysctl_key("INSTANCE", "DEV"), setting
