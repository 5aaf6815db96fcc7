# SPDX-License-Identifier: BSD-3-Clause
"""One guest: QEMU started, spoken to, watched and stopped."""

import re
import shlex
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

from preswapd.guest import accelerator, initramfs
from preswapd.guest.channel import Channel, ChannelClosedError, Outcome
from preswapd.guest.faults import CommandError, GuestError, GuestTimeoutError, LostGuestError
from preswapd.guest.kernel import Kernel
from preswapd.guest.programs import find
from preswapd.guest.readings import SwapArea, swap_areas, troubles, vmstat
from preswapd.host.children import Child
from preswapd.host.meminfo import amounts, listed
from preswapd.qmp import Monitor, MonitorError

# Under emulation on a busy machine; an idle one takes 4 s, KVM one.
BOOT_SECONDS = 60.0
COMMAND_SECONDS = 60.0
MOVE_SECONDS = 120.0
# A guest that lives longer is stuck, or its caller is.
LIFE_SECONDS = 600.0
POLL_SECONDS = 0.3
# A guest that writes to all of its memory stands still for a moment, however fast that is copied.
MOVE_LIMITS = {"max-bandwidth": 1 << 30, "downtime-limit": 30_000}
CONSOLE_LINES = 30
# Emulation with a thread for each virtual processor lets one stand still where the host is busy;
# and while the kernel maps its devices an access may go to another one than was meant, which ends
# QEMU (7.2 and 10.0) with one of these assertions.
FALSE_START = re.compile(
    r"soft lockup|rcu_preempt detected stalls|(iotlb_to_section|msix_table_mmio_write): Assertion"
)
PANIC = re.compile(r"Kernel panic[^\n]*")
# QEMU's answer to query-migrate.
Migration = dict[str, Any]

KERNEL_OPTIONS = (
    "console=ttyS0",
    "quiet",
    "panic=-1",  # a panic is a reboot at once, which -no-reboot makes QEMU's end
    "rootfstype=ramfs",  # a tmpfs would be swapped out itself
    "mitigations=off",
    "no_timer_check",
    "cryptomgr.notests",  # a processor was seen to be stuck in them for a minute
)


@dataclass(frozen=True)
class Hardware:
    """What the guest is made of; `disks` are QEMU's options, as qemu-args prints them."""

    memory: int
    processors: int = 2
    disks: Sequence[str] = ()
    # Shown read-only as /dev/vda.
    material: Path | None = None
    # The command that runs QEMU's command line, if any: to put it into a cgroup, say.
    wrapper: Sequence[str] = ()


@dataclass(frozen=True)
class Software:
    """What runs in it: a kernel, programs of this host, and files by their path in the guest.

    `drivers`: modules of the kernel for what else its hardware has.
    """

    kernel: Kernel
    programs: Sequence[Path] = ()
    files: Mapping[str, bytes] = field(default_factory=dict)
    drivers: Sequence[str] = ()


class Guest:
    """A running guest while the `with` block lasts.

    Everything that waits has a limit.  LostGuestError when QEMU ends or the guest panics,
    GuestTimeoutError when the guest does not answer.
    """

    def __init__(
        self,
        hardware: Hardware,
        software: Software,
        cache: Path,
        *,
        life: float = LIFE_SECONDS,
        incoming: str = "",
    ) -> None:
        """`incoming`: no boot; it goes on with what `migrate` of another one like it sends."""
        self.hardware = hardware
        self.software = software
        self.life = life
        self.incoming = incoming
        self.qemu = find("qemu-system-x86_64", "qemu-system-x86")
        self.accelerator = accelerator.choose(self.qemu, software.kernel, cache)
        self.kernel_version = ""
        self._stack = ExitStack()

    # --- its life ---

    def __enter__(self) -> Self:
        try:
            self._start()
        except BaseException:
            self._stack.close()
            raise
        return self

    def __exit__(self, *error: object) -> None:
        self._stack.close()

    def _start(self) -> None:
        """A boot that emulation has spoilt says nothing of the guest: once more."""
        try:
            self._boot()
        except (GuestTimeoutError, LostGuestError) as error:
            if not FALSE_START.search(error.console):
                raise
            self._stack.close()
            self._boot()

    def _boot(self) -> None:
        enter = self._stack.enter_context
        self._deadline = time.monotonic() + self.life
        self._folder = Path(enter(tempfile.TemporaryDirectory(prefix="preswapd-guest-")))
        software = self.software
        built = initramfs.build(
            software.kernel.modules, software.programs, software.files, software.drivers
        )
        (self._folder / "initramfs").write_bytes(built)
        # Sockets that have no name leave no file behind and let nobody else in.
        commands, commands_there = socket.socketpair()
        monitor, monitor_there = socket.socketpair()
        self._channel = enter(closing(Channel(commands)))
        with commands_there, monitor_there, monitor:
            self._spawn(commands_there.fileno(), monitor_there.fileno())
            commands_there.close()
            monitor_there.close()
            try:
                self._monitor = enter(closing(Monitor(monitor.dup())))
            except MonitorError:
                raise self._lost() from None
        if not self.incoming:
            self.kernel_version = self._reply(
                "the guest did not boot", self._channel.greeting, BOOT_SECONDS
            ).output.strip()

    def _spawn(self, commands: int, monitor: int) -> None:
        self._child = Child(
            self._command(commands, monitor),
            self._folder / "qemu.log",
            pass_fds=(commands, monitor),
        )
        self._stack.callback(self._child.kill)

    def _command(self, commands: int, monitor: int) -> list[str]:
        hardware = self.hardware
        material = (
            f"if=none,id=material,file={hardware.material},format=raw,readonly=on,cache=writeback",
            "virtio-blk-pci,drive=material,serial=material",
        )
        return [
            *hardware.wrapper,
            *(str(self.qemu), "-nodefaults", "-no-user-config", "-display", "none", "-no-reboot"),
            *("-name", "preswapd-guest", "-machine", "q35,usb=off,smbus=off"),
            *accelerator.ACCELERATORS[self.accelerator],
            *("-m", f"{hardware.memory >> 20}M", "-smp", str(hardware.processors)),
            *("-kernel", str(self.software.kernel.image)),
            *("-initrd", str(self._folder / "initramfs"), "-append", " ".join(KERNEL_OPTIONS)),
            *("-serial", f"file:{self._folder / 'console'}", "-device", "virtio-rng-pci"),
            *("-chardev", f"socket,id=monitor,fd={monitor}", "-qmp", "chardev:monitor"),
            *("-chardev", f"socket,id=commands,fd={commands}", "-device", "virtio-serial-pci"),
            *("-device", "virtserialport,chardev=commands,name=preswapd.commands"),
            *(("-drive", material[0], "-device", material[1]) if hardware.material else ()),
            *hardware.disks,
            *(("-incoming", self.incoming) if self.incoming else ()),
        ]

    @property
    def pid(self) -> int:
        """QEMU's."""
        return self._child.pid

    # --- commands ---

    def run(self, command: str, timeout: float = COMMAND_SECONDS, *, check: bool = True) -> Outcome:
        """Runs a shell command; CommandError when it fails, unless `check` is off."""
        outcome = self._reply(
            f"no answer from the guest to {command!r}",
            lambda limit: self._channel.run(command, limit),
            timeout,
        )
        if check and outcome.status:
            raise CommandError(
                f"in the guest, {command!r} ended with status {outcome.status}: {outcome.output}"
            )
        return outcome

    def start(self, name: str, command: str) -> "Job":
        """Runs a shell command beside others."""
        job = Job(self, name)
        self.run(f"rm -f {job.status}")
        self.run(f"setsid sh -c {shlex.quote(job.script(command))} >/dev/null 2>&1 &")
        return job

    def read(self, path: str) -> str:
        return self.run(f"cat {shlex.quote(path)}").output

    # --- swap ---

    def swapon(self, label: str) -> SwapArea:
        """Turns on the swap area with this label, with discards."""
        before = {area.path for area in self.swaps()}
        self.run(f'swapon -d "$(findfs LABEL={shlex.quote(label)})"')
        return next(area for area in self.swaps() if area.path not in before)

    def swapoff(self, path: str, timeout: float = 120.0) -> None:
        """All that was swapped must fit into memory again."""
        self.run(f"swapoff {shlex.quote(path)}", timeout)

    def swaps(self) -> list[SwapArea]:
        return swap_areas(self.read("/proc/swaps"))

    def meminfo(self) -> dict[str, int]:
        return amounts(self.read("/proc/meminfo"))

    def available(self) -> int:
        """Bytes that its programs can still get without swapping.

        What is free on the lists of its processors MemAvailable leaves out: 3.6 MiB were seen of
        112, now there and now not.
        """
        return self.meminfo()["MemAvailable"] + listed(self.read("/proc/zoneinfo"))

    def vmstat(self) -> dict[str, int]:
        return vmstat(self.read("/proc/vmstat"))

    # --- what went wrong ---

    def troubles(self) -> list[str]:
        """I/O errors, killed processes and the like in the guest's log."""
        return troubles(self.run("dmesg").output)

    def stops(self) -> list[dict[str, object]]:
        """I/O errors that QEMU saw: with werror=stop it pauses the guest, which then sees none."""
        return self._monitor.events("BLOCK_IO_ERROR", "STOP", "RESET", "GUEST_PANICKED")

    def state(self) -> str:
        """QEMU's word for it: running, paused, io-error."""
        return str(self._execute("query-status")["status"])

    def pause(self) -> None:
        self._execute("stop")

    def resume(self) -> None:
        """Goes on where an I/O error has paused it: what failed is tried again."""
        self._execute("cont")

    # --- to another QEMU ---

    def migrate(self, to: str) -> Migration:
        """Sends it to the guest with this `incoming`, or into a file with "exec:cat >FILE".

        Here it is paused then; `resume` has it go on here.
        """
        self.begin_to_migrate(to)
        return self.migrated()

    def begin_to_migrate(self, to: str, **limits: int) -> None:
        """Returns while the guest still runs here; `limits` as QEMU names them."""
        self.limit_migration(**(limits or MOVE_LIMITS))
        self._execute("migrate", uri=to)

    def limit_migration(self, **limits: int) -> None:
        """Also of one under way."""
        self._execute("migrate-set-parameters", **limits)

    def cancel_migration(self) -> None:
        self._execute("migrate_cancel")

    def migration(self) -> Migration:
        """What QEMU says of it."""
        found: Migration = self._execute("query-migrate")
        return found

    def migrated(self) -> Migration:
        """Once it has; GuestError where it has failed or was cancelled."""
        deadline = time.monotonic() + MOVE_SECONDS
        while (seen := self.migration()).get("status") != "completed":
            if seen.get("status") in ("failed", "cancelled"):
                raise GuestError(f"the guest did not move: {seen}")
            if time.monotonic() > deadline:
                raise GuestTimeoutError(f"the guest did not move: {seen}")
            time.sleep(POLL_SECONDS)
        return seen

    def _execute(self, command: str, **arguments: object) -> Any:
        try:
            return self._monitor.execute(command, **arguments)
        except MonitorError as error:
            raise GuestError(str(error)) from error

    # --- its console ---

    def console(self) -> str:
        """The console's last lines, then QEMU's own."""
        return "\n".join(self._said().splitlines()[-CONSOLE_LINES:])

    def _said(self) -> str:
        texts = [self._folder / "console", self._folder / "qemu.log"]
        return "\n".join(
            path.read_text(errors="replace").strip() for path in texts if path.exists()
        ).strip()

    def _reply(self, complaint: str, ask: Callable[[float], Outcome], timeout: float) -> Outcome:
        limit = min(timeout, self._deadline - time.monotonic())
        try:
            return ask(max(limit, 0.0))
        except ChannelClosedError:
            raise self._lost() from None
        except TimeoutError:
            why = (
                f"its {self.life:.0f} s were over" if limit < timeout else f"after {timeout:.0f} s"
            )
            # With werror=stop a disk that fails shows only in QEMU, which pauses the guest.
            seen = "".join(f"; QEMU: {event['event']}" for event in self.stops()[:1])
            raise GuestTimeoutError(f"{complaint} ({why}{seen})", self.console()) from None

    def _lost(self) -> LostGuestError:
        try:
            self._child.wait()
        except subprocess.TimeoutExpired:
            return LostGuestError("the guest closed its command port", self.console())
        console = self.console()
        # A panic is followed by more lines than are shown.
        if panic := PANIC.search(self._said()):
            return LostGuestError(f"the guest's kernel panicked: {panic[0]}", console)
        last = console.splitlines()[-1:] or ["it said nothing"]
        return LostGuestError(f"QEMU ended with {self._child.ending}: {last[0]}", console)


class Job:
    """A command that runs in the guest beside others."""

    def __init__(self, guest: Guest, name: str) -> None:
        self.guest = guest
        self.name = name
        self.log = f"/run/{name}.log"
        self.status = f"/run/{name}.status"

    def script(self, command: str) -> str:
        """Writes down how the command ended, also when it exits or is killed for its memory."""
        return "; ".join(
            [
                "echo -1000 >/proc/self/oom_score_adj",
                f"(echo 0 >/proc/self/oom_score_adj; {command}\n) >{self.log} 2>&1",
                f"echo $? >{self.status}.new",
                f"mv {self.status}.new {self.status}",
            ]
        )

    def poll(self) -> Outcome | None:
        """None while it runs."""
        done = self.guest.run(f"cat {self.status} && tail -c 4000 {self.log}", check=False)
        if done.status:
            return None
        status, _, output = done.output.partition("\n")
        return Outcome(int(status), output)

    def wait(self, timeout: float) -> Outcome:
        """Waits for its end; CommandError when it failed."""
        deadline = time.monotonic() + timeout
        while (outcome := self.poll()) is None:
            if time.monotonic() > deadline:
                raise GuestTimeoutError(
                    f"in the guest, {self.name} had not ended after {timeout:.0f} s",
                    self.guest.console(),
                )
            time.sleep(POLL_SECONDS)
        if outcome.status:
            raise CommandError(
                f"in the guest, {self.name} ended with status {outcome.status}: {outcome.output}"
            )
        return outcome
