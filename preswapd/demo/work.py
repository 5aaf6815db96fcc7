# SPDX-License-Identifier: BSD-3-Clause
"""What the guest does with more memory than it has, and how its results are known to be right.

Three things at once, each checked in its own way: files in a tmpfs, whose every byte is compared in
the end; the words of a text, counted again and again by the same programs that counted them on the
host; and memtester, which writes patterns and random values over memory and reads them back.
"""

import shlex
import subprocess
from dataclasses import dataclass
from pathlib import Path

from preswapd.demo.checks import DemoError
from preswapd.demo.material import Material
from preswapd.guest.channel import Outcome
from preswapd.guest.machine import Guest, Job
from preswapd.guest.programs import find

FILES_MIB = 64
TEXT_MIB = 10
MEMTESTER_MIB = 16

FOLDER = "/files"
SUMS = "/run/sums"
STOP = "/run/stop"
USER = "nobody"
COUNT_SECONDS = 60.0
FILL_SECONDS = 120.0
# Where some fifteen other programs wanted two processors it took more than three minutes.
ROUND_SECONDS = 300.0
CHECK_SECONDS = 120.0


@dataclass(frozen=True)
class Tools:
    """Programs of this host that run in the guest too."""

    tr: Path
    sort: Path
    uniq: Path
    sha256sum: Path
    memtester: Path

    @property
    def all(self) -> list[Path]:
        return [self.tr, self.sort, self.uniq, self.sha256sum, self.memtester]

    @property
    def count_words(self) -> str:
        """A shell command: how often each word occurs in its input, as one sum."""
        return (
            f"{self.tr} -cs A-Za-z0-9_ '\\n' | LC_ALL=C {self.sort} --buffer-size=400M"
            f" | {self.uniq} -c | {self.sha256sum}"
        )


def find_tools() -> Tools:
    names = ("tr", "sort", "uniq", "sha256sum")
    tr, sort, uniq, sha256sum = (find(name, "coreutils") for name in names)
    return Tools(tr, sort, uniq, sha256sum, find("memtester", "memtester"))


def counted_here(tools: Tools, text: bytes) -> str:
    """The host's own result."""
    done = subprocess.run(
        ["sh", "-c", tools.count_words],
        input=text,
        capture_output=True,
        timeout=COUNT_SECONDS,
        check=False,
    )
    if done.returncode:
        raise DemoError(f"cannot count words on this host: {done.stderr.decode().strip()}")
    return done.stdout.decode().split()[0]


def guest_files(material: Material) -> dict[str, bytes]:
    """What the work needs in the guest: what `sha256sum -c` reads, and the user of memtester."""
    sums = enumerate(material.file_sums)
    listed = "".join(f"{digest}  {FOLDER}/{number}\n" for number, digest in sums)
    return {SUMS: listed.encode(), "/etc/passwd": f"{USER}:x:65534:65534::/:/bin/sh\n".encode()}


class Work:
    """The jobs in a guest, and what came out of them."""

    def __init__(self, guest: Guest, tools: Tools) -> None:
        self.guest = guest
        self.tools = tools
        self.jobs: list[Job] = []

    def fill(self) -> Job:
        """Copies the files' data into memory, a MiB a file."""
        self.guest.run(f"mkdir {FOLDER} && mount -t tmpfs -o size=1G none {FOLDER}")
        copy = f"dd if=/dev/vda of={FOLDER}/$n bs=1M count=1 skip=$n 2>/dev/null || exit 1"
        last = FILES_MIB - 1
        return self.guest.start(
            "fill", f"for n in $(seq 0 {last}); do {copy}; done; echo 3 >/proc/sys/vm/drop_caches"
        )

    def start(self) -> None:
        text = f"dd if=/dev/vda bs=1M skip={FILES_MIB} count={TEXT_MIB} 2>/dev/null"
        self._repeat("words", f"{text} | {self.tools.count_words} >>/run/words.results")
        # An ordinary user without the right to lock memory, which could not be swapped then.
        tester = f"start-stop-daemon -S -c {USER} -x {self.tools.memtester}"
        self._repeat(
            "memtester",
            f"ulimit -l 0; MEMTESTER_TEST_MASK=1 {tester} -- {MEMTESTER_MIB}M 1"
            " && echo passed >>/run/memtester.results",
        )

    def _repeat(self, name: str, command: str) -> None:
        again = f"while [ ! -e {STOP} ]; do ({command}) || exit 1; done"
        self.jobs.append(self.guest.start(name, again))

    def rounds(self) -> dict[str, int]:
        return {job.name: len(self.results(job.name)) for job in self.jobs}

    def results(self, name: str) -> list[str]:
        return self.guest.run(f"cat /run/{name}.results", check=False).output.splitlines()

    def stop(self) -> None:
        """Lets each job end its round."""
        self.guest.run(f"touch {STOP}")

    def outcomes(self) -> dict[str, Outcome]:
        """How the jobs ended that have."""
        polled = {job.name: job.poll() for job in self.jobs}
        return {name: outcome for name, outcome in polled.items() if outcome is not None}

    def failed(self) -> bool:
        return any(outcome.status for outcome in self.outcomes().values())

    def ended(self) -> bool:
        return len(self.outcomes()) == len(self.jobs)

    def check_files(self) -> Job:
        return self.guest.start("check", f"{shlex.quote(str(self.tools.sha256sum))} -c {SUMS}")

    def drop_files(self) -> None:
        self.guest.run(f"umount {FOLDER}")
