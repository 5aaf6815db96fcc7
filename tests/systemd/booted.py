# SPDX-License-Identifier: BSD-3-Clause
"""A real systemd, as the first process of namespaces of its own: of this host's /usr, or of a
system in a folder."""

import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Self

from tests.running import GUEST_PATIENCE, PATIENCE, run, wait_for

CHECKOUT = Path(__file__).parents[2]
REBOOT = "reboot.target"
NAMESPACES = ("--mount", "--pid", "--cgroup", "--uts", "--ipc", "--net")


class NotPossibleError(Exception):
    """This environment does not let a systemd run; the message says why."""


class Booted:
    """It runs while the `with` block does, and leaves nothing behind but `kept`, its /var/lib."""

    def __init__(self, system: Path | None = None, kept: Path | None = None) -> None:
        self.check()
        self.cgroup = Path(tempfile.mkdtemp(prefix="preswapd-test-", dir=own_cgroup()))
        self.cgroup.chmod(0o755)  # as the root of them all, whose files any service may read
        self.root = Path(tempfile.mkdtemp(prefix="preswapd-test-"))
        arguments = ["", system] if system else [CHECKOUT, kept or ""]
        boot = ["sh", str(Path(__file__).with_name("boot.sh")), *map(str, [self.root, *arguments])]
        # It ends with us, even if we are killed.
        unshare = ["setpriv", "--pdeathsig", "KILL", "unshare", "--fork", "--kill-child"]
        enter = f'echo $$ > {self.cgroup}/cgroup.procs && exec "$@"'
        self.outer = subprocess.Popen(
            ["sh", "-c", enter, "sh", *unshare, *NAMESPACES, *boot],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    @staticmethod
    def check() -> None:
        if os.geteuid() != 0:
            raise NotPossibleError("only root may start a systemd of its own")
        if not Path("/lib/systemd/systemd").exists():
            raise NotPossibleError("there is no /lib/systemd/systemd")
        trial = ["unshare", "--fork", *NAMESPACES, "mount", "--make-rprivate", "/"]
        if run(trial).returncode:
            raise NotPossibleError("this environment does not let root make namespaces and mount")

    @property
    def pid(self) -> int:
        """Of its first process, as it is seen from here."""
        children = Path(f"/proc/{self.outer.pid}/task/{self.outer.pid}/children").read_text()
        return int(children.split()[0])

    def path(self, inside: str) -> Path:
        """A file of it, also a socket, for whoever is outside."""
        return Path(f"/proc/{self.pid}/root{inside}")

    def run(self, *command: str, check: bool = True, timeout: float = PATIENCE) -> str:
        """What a command that runs in it prints."""
        # Its root too: where we are in a chroot, that of the mount namespace is another one.
        enter = ["nsenter", "--target", str(self.pid), *NAMESPACES, "--root", "--wd=/"]
        environment = {"PATH": "/usr/sbin:/usr/bin", "SYSTEMD_PAGER": ""}
        assignments = [f"{name}={value}" for name, value in environment.items()]
        done = run([*enter, "env", "-i", *assignments, *command], timeout=timeout)
        if check and done.returncode:
            raise AssertionError(f"{command} exited {done.returncode}: {done.stdout}{done.stderr}")
        return done.stdout

    def show(self, unit: str, value: str) -> str:
        return self.run("systemctl", "show", "--property", value, "--value", unit).strip()

    def wait_for(self, unit: str, value: str, *wanted: str) -> str:
        return wait_for(lambda: self.show(unit, value), lambda found: found in wanted)

    def journal(self, unit: str, *options: str) -> Sequence[str]:
        return self.run("journalctl", "--output=cat", "--unit", unit, *options).splitlines()

    def __enter__(self) -> Self:
        # A minute and more on a busy machine is no reason to leave tests out.
        deadline = time.monotonic() + GUEST_PATIENCE
        try:
            while self.state() not in {"running", "degraded"}:
                if self.outer.poll() is not None:
                    assert self.outer.stdout is not None
                    raise NotPossibleError(f"systemd ended: {self.outer.stdout.read()}")
                if time.monotonic() > deadline:
                    raise NotPossibleError(f"systemd stays {self.state()!r} here")
                time.sleep(0.1)
            self.check_confinement()
        except BaseException:
            self.close()
            raise
        return self

    def check_confinement(self) -> None:
        """In a chroot, for one, no service can have a view of the file system of its own."""
        properties = ("PrivateDevices=yes", "ProtectSystem=strict", "PrivateUsers=yes")
        options = [f"--property={text}" for text in properties]
        try:
            self.run("systemd-run", "--wait", "--quiet", *options, "true")
        except AssertionError as error:
            raise NotPossibleError(f"systemd cannot confine a service here: {error}") from None

    def reboot(self) -> None:
        """All stops in its order, and nothing runs afterwards: the next one is another Booted."""
        self.run("systemctl", "--no-block", "--job-mode=replace-irreversibly", "start", REBOOT)
        self.outer.wait(PATIENCE)

    def state(self) -> str:
        with suppress(OSError, IndexError):
            return self.run("systemctl", "is-system-running", check=False).strip()
        return ""

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if error is not None:
            # Shown by pytest when the test failed.
            print(self.run("journalctl", "--no-hostname", "--lines=50", check=False))
        self.close()

    def close(self) -> None:
        """With its first process go all others, and with its namespaces all that it mounted."""
        self.outer.kill()
        self.outer.communicate()
        shutil.rmtree(self.root)
        events = self.cgroup / "cgroup.events"
        wait_for(events.read_text, lambda text: not text.startswith("populated 1"))
        for folder, _, _ in os.walk(self.cgroup, topdown=False):
            os.rmdir(folder)


def own_cgroup() -> Path:
    """Ours in the unified hierarchy, under which others may be made."""
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        before, after = line.split(" - ")
        if after.split()[0] == "cgroup2":
            place = Path(before.split()[4])
            break
    else:
        raise NotPossibleError("no cgroup2 is mounted")
    (own,) = (
        line.removeprefix("0::/")
        for line in Path("/proc/self/cgroup").read_text().splitlines()
        if line.startswith("0::")
    )
    found = place / own
    if not os.access(found, os.W_OK) or os.statvfs(found).f_flag & os.ST_RDONLY:
        raise NotPossibleError(f"{found} cannot be written: there is no cgroup for a systemd")
    return found
