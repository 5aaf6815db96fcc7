# SPDX-License-Identifier: BSD-3-Clause
"""`park` and `unpark`, on a QEMU that runs nothing but its firmware: what is looked at before
anything is done, what is kept, and who is told what.  tests/guest/test_parking.py has real guests.

But for test_guest_without_a_driver_keeps_all, `park` does not wait as long as it does elsewhere
(hasty.py), and where it must lose its patience, it has less (hasty_rules).
"""

import json
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from itertools import count
from pathlib import Path

import nbd
import pytest

from preswapd.api.client import Client
from preswapd.api.messages import Parked
from preswapd.cli.instances import Instances
from preswapd.cli.park.balloon import OPTION, Balloon
from preswapd.cli.park.interrupts import Interrupts
from preswapd.cli.park.machine import Machine as ParkedMachine
from preswapd.cli.park.machine import named
from preswapd.cli.park.park import Parker
from preswapd.cli.park.policy import Action, Rules, Seen, State, rules_for
from preswapd.cli.park.unpark import give_back
from preswapd.errors import PartialError, RefusedError, UnreachableError
from preswapd.qmp import Monitor
from tests.cli.conftest import Machine, StartMachine
from tests.clients import BEHIND_ZONE, connected
from tests.conftest import StartServer
from tests.running import PATIENCE, RunningServer, run, wait_until

MIB = 1 << 20
WHOLE = 32 * MIB  # of start_machine
PAGES = 256
HASTY = (sys.executable, str(Path(__file__).with_name("hasty.py")))
Two = tuple[RunningServer, Machine, Machine]


def disk(server: RunningServer) -> list[str]:
    arguments: list[str] = json.loads(server.ctl("--json", "qemu-args", "g1").stdout)
    return arguments


@pytest.fixture
def machine(server: RunningServer, start_machine: StartMachine) -> Machine:
    """With a balloon, and g1."""
    return start_machine(*OPTION.split(), *disk(server))


@pytest.fixture
def hasty_rules(monkeypatch: pytest.MonkeyPatch) -> None:
    """For a Parker of this process: test_policy.py has the patience of others."""
    monkeypatch.setattr("preswapd.cli.park.balloon.STATS_SECONDS", 0.2)

    def rules(has: int, floor: int) -> Rules:
        return rules_for(has, floor)._replace(window=0.5, patience=2.0)

    monkeypatch.setattr("preswapd.cli.park.park.rules_for", rules)


def left(server: RunningServer) -> int:
    return int(server.json_stats()["devices"]["g1"]["parked"])


def hasty_command(server: RunningServer, *arguments: str) -> list[str]:
    return [*HASTY, f"--runtime-dir={server.runtime_dir}", *arguments]


def hasty(server: RunningServer, *arguments: str) -> subprocess.CompletedProcess[str]:
    done = run(hasty_command(server, *arguments))
    assert done.returncode == 0, done.stderr
    return done


def refused(server: RunningServer, status: int, *arguments: str) -> str:
    """The one line that it says."""
    done = run(hasty_command(server, *arguments))
    assert (done.returncode, done.stdout) == (status, ""), done.stderr
    assert done.stderr.count("\n") == 1
    return done.stderr


def noted(server: RunningServer, machine: Machine) -> None:
    """As `park` has left it."""
    parked = Parked(8 * MIB, WHOLE, str(machine.qmp), machine.process.pid)
    Client(server.control_socket).park("g1", parked)
    assert left(server) == 8 * MIB


# --- before anything is done ---


def test_dry_run_changes_nothing(server: RunningServer, machine: Machine) -> None:
    command = ("park", "g1", f"--qmp={machine.qmp}", "--floor=8M", "--dry-run")
    done = hasty(server, *command)
    assert done.stdout.splitlines() == [
        "g1 would be left with 8M of 32M, in steps of 16M",
        f"its guest may swap out 24M; there is room for {done.stdout.split()[-1]}",
    ]
    plan = json.loads(hasty(server, "--json", *command).stdout)
    assert 24 * MIB <= plan.pop("room") <= 64 * MIB
    assert plan == {
        "name": "g1",
        "devices": ["g1"],
        "whole": WHOLE,
        "has": WHOLE,
        "floor": 8 * MIB,
        "swap": 24 * MIB,
    }
    assert left(server) == 0
    path = "/machine/peripheral-anon/device[0]"
    assert machine.ask("qom-get", path=path, property="guest-stats-polling-interval") == 0


def test_instance_is_as_good_a_name(server: RunningServer, machine: Machine) -> None:
    options = (f"--qmp={machine.qmp}", "--floor=8M", "--dry-run")
    assert hasty(server, "park", "default", *options).stdout.startswith(
        "default would be left with"
    )


def test_qemu_without_a_balloon(server: RunningServer, start_machine: StartMachine) -> None:
    machine = start_machine(*disk(server))
    assert OPTION in refused(server, 4, "park", "g1", f"--qmp={machine.qmp}")


def test_guest_without_the_disk(server: RunningServer, start_machine: StartMachine) -> None:
    machine = start_machine(*OPTION.split())
    for name in ("g1", "default"):
        said = refused(server, 4, "park", name, f"--qmp={machine.qmp}", "--floor=8M")
        assert "g1 of default not attached" in said


def test_disk_that_no_device_shows(server: RunningServer, start_machine: StartMachine) -> None:
    """QEMU has the export, and its guest has not."""
    node = f"nbd:unix:{server.nbd_socket}:exportname=g1"
    machine = start_machine(
        *OPTION.split(), "-drive", f"if=none,id=x,format=raw,readonly=on,file={node}"
    )
    said = refused(server, 4, "park", "g1", f"--qmp={machine.qmp}", "--floor=8M")
    assert "g1 of default not attached" in said


def test_balloon_that_gives_nothing_back(
    server: RunningServer, start_machine: StartMachine
) -> None:
    machine = start_machine("-device", "virtio-balloon-pci", *disk(server))
    command = ("park", "g1", f"--qmp={machine.qmp}", "--floor=8M", "--dry-run")
    assert OPTION in refused(server, 4, *command)
    hasty(server, *command, "--force")


def test_paused_guest(server: RunningServer, start_machine: StartMachine) -> None:
    machine = start_machine(*OPTION.split(), *disk(server), "-S")
    said = refused(server, 4, "park", "g1", f"--qmp={machine.qmp}", "--floor=8M")
    assert "g1 does not run (prelaunch)" in said


def test_missing_room_is_named(start_server: StartServer, start_machine: StartMachine) -> None:
    server = start_server(devices={"g1": "16M"})
    machine = start_machine(*OPTION.split(), *disk(server))
    command = ("park", "g1", f"--qmp={machine.qmp}", "--dry-run")
    said = refused(server, 4, *command, "--floor=8M")
    assert "its guest may swap out 24M, and there is room for 16" in said
    floor = said.split("(--floor ")[1].split()[0]
    # What it says works, and a little less does not.
    hasty(server, *command, f"--floor={floor}")
    assert "is missing" in refused(server, 4, *command, f"--floor={int(floor[:-1]) - 1}M")


@pytest.mark.parametrize("floor", ["33M", "0", "100K"])
def test_floor_that_is_none(server: RunningServer, machine: Machine, floor: str) -> None:
    said = refused(server, 2, "park", "g1", f"--qmp={machine.qmp}", f"--floor={floor}")
    assert "1M to 32M" in said


def test_unknown_name(server: RunningServer, machine: Machine) -> None:
    assert "'g9'" in refused(server, 2, "park", "g9", f"--qmp={machine.qmp}")
    assert "'g9'" in refused(server, 2, "unpark", "g9")


def test_monitor_in_use(server: RunningServer, machine: Machine) -> None:
    with closing(Monitor.at(machine.qmp)):
        said = refused(server, 1, "park", "g1", f"--qmp={machine.qmp}")
    assert "virsh setmem" in said


def test_old_name_of_two(start_server: StartServer, server: RunningServer) -> None:
    """A device called as the instance: it is the same one, however it is meant."""
    other = start_server(devices={"default": "16M"})
    assert named(Instances(other.runtime_dir), "default").device == "default"


# --- what is kept ---


def test_guest_without_a_driver_keeps_all(server: RunningServer, machine: Machine) -> None:
    done = server.ctl("park", "g1", f"--qmp={machine.qmp}", "--floor=8M", check=False)
    assert (done.returncode, done.stdout) == (4, "")
    assert done.stderr.splitlines()[0].startswith("g1: 16M of 32M; swapped out")
    assert "was not parked: its guest gives no more" in done.stderr
    assert left(server) == 0


class KilledError(Exception):
    pass


def parts(server: RunningServer, monitor: Monitor, machine: Machine) -> ParkedMachine:
    return ParkedMachine(named(Instances(server.runtime_dir), "g1"), monitor, machine.qmp)


def killed_where(balloon: Balloon, orders: list[int], *, before: bool) -> Callable[[int], None]:
    tell = balloon.leave

    def leave(size: int) -> None:
        if before:
            raise KilledError
        orders.append(size)
        tell(size)
        raise KilledError

    return leave


@pytest.mark.parametrize("before", [True, False])
def test_park_that_is_killed_is_known(
    server: RunningServer, machine: Machine, monkeypatch: pytest.MonkeyPatch, before: bool
) -> None:
    """Before QEMU is told, and after: a machine with less memory is never unknown."""
    with closing(Monitor.at(machine.qmp)) as monitor:
        balloon, orders = Balloon(monitor), list[int]()
        parker = Parker(parts(server, monitor, machine), balloon)
        monkeypatch.setattr(balloon, "leave", killed_where(balloon, orders, before=before))
        with pytest.raises(KilledError):
            parker.order(16 * MIB, Interrupts())
    assert orders == ([] if before else [16 * MIB])
    assert left(server) == 16 * MIB
    server.restart()
    assert left(server) == 16 * MIB
    assert server.ctl("unpark", "g1").stdout == "g1 has all of its memory: 32M of 32M\n"
    assert left(server) == 0


@pytest.mark.usefixtures("hasty_rules")
def test_step_that_cannot_be_kept_is_not_made(server: RunningServer, machine: Machine) -> None:
    """Of the first one nothing was changed then, of a later one it is known how far it was."""
    kept = server.runtime_dir / "parked.json"
    kept.mkdir()
    said = refused(server, 4, "park", "g1", f"--qmp={machine.qmp}", "--floor=8M")
    assert "parked.json cannot be written" in said
    kept.rmdir()
    with closing(Monitor.at(machine.qmp)) as monitor:
        parker = Parker(parts(server, monitor, machine), Balloon(monitor))
        plan = parker.plan(8 * MIB)
        parker.order(16 * MIB, Interrupts())
        kept.unlink()
        kept.mkdir()
        with pytest.raises(PartialError, match="g1 runs on with 16M of 32M"):
            parker.park(plan._replace(floor=1 * MIB, has=16 * MIB), Interrupts(), quiet=True)
    assert left(server) == 16 * MIB


@pytest.mark.usefixtures("hasty_rules")
def test_machine_that_is_paused_meanwhile(server: RunningServer, machine: Machine) -> None:
    """As after an I/O error: it gives no more, and that is not its guest's doing."""
    with closing(Monitor.at(machine.qmp)) as monitor:
        parker = Parker(parts(server, monitor, machine), Balloon(monitor))
        plan = parker.plan(8 * MIB)
        monitor.execute("stop")
        with pytest.raises(RefusedError, match=r"it does not run any more \(paused\)"):
            parker.park(plan, Interrupts(), quiet=True)
    assert left(server) == 0


@pytest.mark.parametrize("before", [True, False])
def test_unpark_that_is_killed_is_done_again(
    server: RunningServer, machine: Machine, monkeypatch: pytest.MonkeyPatch, before: bool
) -> None:
    noted(server, machine)
    with closing(Monitor.at(machine.qmp)) as monitor:
        balloon, orders = Balloon(monitor), list[int]()
        monkeypatch.setattr(balloon, "leave", killed_where(balloon, orders, before=before))
        with pytest.raises(KilledError):
            give_back(parts(server, monitor, machine), balloon, Interrupts())
    assert orders == ([] if before else [WHOLE])
    assert left(server) == 8 * MIB
    server.ctl("unpark", "g1")
    assert left(server) == 0


def test_end_of_qemu_ends_it(server: RunningServer, machine: Machine) -> None:
    noted(server, machine)
    machine.process.kill()
    machine.process.wait()
    wait_until(lambda: left(server) == 0, "the server to see it")


def test_qemu_that_ends_without_a_server(
    server: RunningServer, machine: Machine, start_machine: StartMachine
) -> None:
    """Another one that comes for the disk is not parked."""
    noted(server, machine)
    server.kill()
    machine.process.kill()
    machine.process.wait()
    server.start()
    start_machine(*disk(server))
    assert left(server) == 0
    refused(server, 4, "unpark", "g1")


def test_qemu_that_runs_on_without_a_server(server: RunningServer, machine: Machine) -> None:
    noted(server, machine)
    server.kill()
    said = refused(server, 5, "unpark", "g1", f"--qmp={machine.qmp}")
    assert "was told to give all back (32M of 32M by now)" in said
    refused(server, 3, "unpark", "g1")
    server.start()
    assert left(server) == 8 * MIB
    server.ctl("unpark", "g1")
    assert left(server) == 0


@pytest.mark.usefixtures("hasty_rules")
def test_server_that_does_not_come_back(
    server: RunningServer, machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What became of the machine is said, and the next server knows of it."""
    monkeypatch.setattr("preswapd.cli.park.park.AWAY_SECONDS", 0.0)
    with closing(Monitor.at(machine.qmp)) as monitor:
        parker = Parker(parts(server, monitor, machine), Balloon(monitor))
        plan = parker.plan(8 * MIB)
        parker.order(16 * MIB, Interrupts())
        server.kill()
        with pytest.raises(UnreachableError, match="g1 runs on with 16M of 32M"):
            parker.park(plan, Interrupts(), quiet=True)
    server.start()
    assert left(server) == 16 * MIB


@pytest.mark.usefixtures("hasty_rules")
def test_patience_begins_anew_with_another_server(
    server: RunningServer, machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    states = list[State]()

    def decide(rules: Rules, state: State, seen: Seen) -> tuple[State, Action]:
        states.append(state)
        if len(states) == 2:
            server.restart()
        return state, Action.DONE if state.moved is seen else Action.WAIT

    monkeypatch.setattr("preswapd.cli.park.park.decide", decide)
    with closing(Monitor.at(machine.qmp)) as monitor:
        parker = Parker(parts(server, monitor, machine), Balloon(monitor))
        parker.park(parker.plan(8 * MIB), Interrupts(), quiet=True)
    first, second, third = (state.moved.time for state in states)
    assert first == second < third


@pytest.mark.usefixtures("hasty_rules")
def test_device_that_is_removed_meanwhile(server: RunningServer, machine: Machine) -> None:
    with closing(Monitor.at(machine.qmp)) as monitor:
        parker = Parker(parts(server, monitor, machine), Balloon(monitor))
        plan = parker.plan(8 * MIB)
        parker.order(16 * MIB, Interrupts())
        Client(server.control_socket).remove("g1", force=True)
        with pytest.raises(PartialError, match="g1 is not served any more: it was removed; g1 run"):
            parker.park(plan, Interrupts(), quiet=True)


def test_reboot_of_the_guest_changes_nothing(server: RunningServer, machine: Machine) -> None:
    noted(server, machine)
    machine.ask("system_reset")
    assert left(server) == 8 * MIB
    assert server.ctl("unpark", "g1").stdout == "g1 has all of its memory: 32M of 32M\n"


# --- several virtual machines of one instance ---


@pytest.fixture
def two(
    start_server: StartServer, start_machine: StartMachine
) -> tuple[RunningServer, Machine, Machine]:
    """Each with a disk of its own; the instance has a third disk that nobody has."""
    server = start_server(devices={"g1": "64M", "g2": "64M", "g3": "16M"})
    machines = [
        start_machine(*OPTION.split(), *json.loads(server.ctl("--json", "qemu-args", name).stdout))
        for name in ("g1", "g2")
    ]
    return server, machines[0], machines[1]


def test_each_of_two_is_parked_for_itself(two: Two) -> None:
    """The instance's name means both: what is said names the one that was parked."""
    server, one, other = two
    client = Client(server.control_socket)
    said = hasty(server, "park", "default", f"--qmp={one.qmp}", "--floor=32M").stdout
    assert said.startswith("g1 is parked, with 32M of 32M")
    assert list(parked_of(client)) == ["g1"]
    assert "g2 of default not attached" in refused(server, 4, "park", "g2", f"--qmp={one.qmp}")

    hasty(server, "park", "default", f"--qmp={other.qmp}", "--floor=32M")
    assert list(parked_of(client)) == ["g1", "g2"]
    said = refused(server, 2, "unpark", "default")
    assert "several virtual machines of default are parked" in said
    assert "(g1, g2)" in said
    assert list(parked_of(client)) == ["g1", "g2"]
    assert "not attached" in refused(server, 4, "unpark", "g1", f"--qmp={other.qmp}")

    said = server.ctl("unpark", "default", f"--qmp={other.qmp}").stdout
    assert said == "g2 has all of its memory: 32M of 32M\n"
    assert list(parked_of(client)) == ["g1"]
    assert server.ctl("unpark", "default").stdout == "g1 has all of its memory: 32M of 32M\n"
    assert list(parked_of(client)) == []


def parked_of(client: Client) -> dict[str, int]:
    devices = client.stats()["devices"]
    return {name: one["parked"] for name, one in devices.items() if one["parked"]}


# --- two at once ---


def test_unpark_while_park_is_at_it(server: RunningServer, machine: Machine) -> None:
    with stepping(server, machine) as process:
        # It would end by itself, as its guest gives nothing.
        process.send_signal(signal.SIGSTOP)
        others = (("unpark", "g1"), ("park", "g1", f"--qmp={machine.qmp}"))
        with ThreadPoolExecutor() as pool:  # each waits for QEMU's monitor
            for said in pool.map(lambda words: refused(server, 1, *words), others):
                assert "Ctrl-C where `preswapctl park` is still at it" in said
        assert left(server) == 16 * MIB
        process.send_signal(signal.SIGINT)
        process.send_signal(signal.SIGCONT)
        said = process.communicate(timeout=PATIENCE)[1]
    assert process.returncode == 5
    assert said.startswith("preswapctl: interrupted: g1 runs on with 16M of 32M; ")
    server.ctl("unpark", "g1")
    assert left(server) == 0


def test_park_of_what_is_parked(server: RunningServer, machine: Machine) -> None:
    for _ in range(2):
        done = hasty(server, "park", "g1", f"--qmp={machine.qmp}", "--floor=32M")
        assert done.stdout.startswith("g1 is parked, with 32M of 32M")
        assert left(server) == WHOLE


def test_park_of_what_is_nearly_there(server: RunningServer, machine: Machine) -> None:
    """QEMU was told the floor by one that was killed; the guest is on the last bit of the way."""
    noted(server, machine)
    hasty(server, "park", "g1", f"--qmp={machine.qmp}", f"--floor={WHOLE - MIB // 2}")
    assert left(server) == WHOLE - MIB // 2


# --- unpark ---


def test_unpark_of_what_is_not_parked(server: RunningServer, machine: Machine) -> None:
    assert "is not parked" in refused(server, 4, "unpark", "g1")
    done = server.ctl("--json", "unpark", "g1", f"--qmp={machine.qmp}")
    assert json.loads(done.stdout) == {
        "name": "g1",
        "whole": WHOLE,
        "has": WHOLE,
        "state": "running",
    }


def test_unpark_at_another_machine_is_refused(
    server: RunningServer, machine: Machine, start_machine: StartMachine
) -> None:
    noted(server, machine)
    other = start_machine(*OPTION.split())
    assert "not attached" in refused(server, 4, "unpark", "g1", f"--qmp={other.qmp}")
    assert left(server) == 8 * MIB


def test_unpark_by_the_instance(server: RunningServer, machine: Machine) -> None:
    noted(server, machine)
    server.ctl("unpark", "default")
    assert left(server) == 0


# --- watching ---


@contextmanager
def watching(server: RunningServer, machine: Machine) -> Iterator[subprocess.Popen[str]]:
    """Of a machine that is parked, as it has no more than the floor."""
    command = hasty_command(server, "park", "g1", "--watch")
    with subprocess.Popen(
        [*command, f"--qmp={machine.qmp}", "--floor=32M"],
        stderr=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline().startswith("g1 is parked, with 32M of 32M")
            assert process.stderr is not None
            assert (
                process.stderr.readline() == "g1 gets all back once it reads 100 pages a second\n"
            )
            yield process
        finally:
            process.kill()


def with_pages(server: RunningServer) -> nbd.NBD:
    client = connected(server, "g1")
    client.pwrite(b"x" * (PAGES * 4096), BEHIND_ZONE)
    return client


@contextmanager
def reads(client: nbd.NBD) -> Iterator[None]:
    """Many pages a second, without end."""
    over = threading.Event()

    def read() -> None:
        while not over.wait(0.01):
            client.pread(PAGES * 4096, BEHIND_ZONE)

    thread = threading.Thread(target=read)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


def test_reads_wake_it(server: RunningServer, machine: Machine) -> None:
    client = with_pages(server)
    with watching(server, machine) as process:
        assert left(server) == WHOLE
        with reads(client):
            said = process.communicate(timeout=PATIENCE)[1]
    assert (process.returncode, left(server)) == (0, 0)
    assert said == "g1 wakes up\ng1 has 32M of 32M\n"


def test_restart_of_the_server_wakes_nobody(server: RunningServer, machine: Machine) -> None:
    with_pages(server).shutdown()
    with watching(server, machine) as process:
        server.kill()
        server.start()
        with reads(connected(server, "g1")):
            said = process.communicate(timeout=PATIENCE)[1]
    assert (process.returncode, said) == (0, "g1 wakes up\ng1 has 32M of 32M\n")


def test_unpark_by_hand_ends_the_watch(server: RunningServer, machine: Machine) -> None:
    with watching(server, machine) as process:
        server.ctl("unpark", "g1")
        said = process.communicate(timeout=PATIENCE)[1]
    assert (process.returncode, said) == (0, "g1 is not parked any more\n")


def test_busy_monitor_is_waited_for(server: RunningServer, machine: Machine) -> None:
    client = with_pages(server)
    with watching(server, machine) as process:
        assert process.stderr is not None
        with reads(client):
            with closing(Monitor.at(machine.qmp)):
                lines = [process.stderr.readline() for _ in range(2)]
            said = process.communicate(timeout=PATIENCE)[1]
    assert lines == ["g1 wakes up\n", "QEMU's monitor does not answer: trying again\n"]
    assert (process.returncode, said, left(server)) == (0, "g1 has 32M of 32M\n", 0)


@pytest.mark.parametrize("options", [[], ["--json"]])
def test_interrupt_right_behind_the_first_line(
    server: RunningServer, machine: Machine, options: list[str]
) -> None:
    """It is parked, and is not watched yet: that is the same to who has pressed Ctrl-C."""
    command = hasty_command(server, *options, "park", "g1", "--watch")
    with subprocess.Popen(
        [*command, f"--qmp={machine.qmp}", "--floor=32M"],
        stderr=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline()
        process.send_signal(signal.SIGINT)
        said = process.communicate(timeout=PATIENCE)[1]
    assert process.returncode == 0
    assert said.splitlines()[-1].startswith("g1 stays parked, and nobody waits for it to wake up")
    assert left(server) == WHOLE


def test_interrupt_leaves_it_parked(server: RunningServer, machine: Machine) -> None:
    with watching(server, machine) as process:
        process.send_signal(signal.SIGINT)
        said = process.communicate(timeout=PATIENCE)[1]
    assert process.returncode == 0
    assert said.startswith("g1 stays parked, and nobody waits for it to wake up: `")
    assert left(server) == WHOLE


@contextmanager
def stepping(server: RunningServer, machine: Machine) -> Iterator[subprocess.Popen[str]]:
    """Its first step has been made, and its guest does not follow."""
    command = hasty_command(server, "park", "g1", "--floor=8M")
    with subprocess.Popen(
        [*command, f"--qmp={machine.qmp}"], stderr=subprocess.PIPE, text=True
    ) as process:
        try:
            assert process.stderr is not None
            assert process.stderr.readline().startswith("g1: 16M of 32M")
            yield process
        finally:
            process.kill()


def test_interrupt_of_a_step_says_what_it_leaves(server: RunningServer, machine: Machine) -> None:
    with stepping(server, machine) as process:
        process.send_signal(signal.SIGINT)
        said = process.communicate(timeout=PATIENCE)[1]
    assert process.returncode == 5
    assert said.startswith("preswapctl: interrupted: g1 runs on with 16M of 32M; ")
    assert left(server) == 16 * MIB
    # The command that it names works.
    unpark = said.split("`")[3]
    done = subprocess.run(unpark, shell=True, capture_output=True, text=True, check=True)
    assert done.stdout == "g1 has all of its memory: 32M of 32M\n"


@pytest.fixture
def own_interrupt() -> Iterator[None]:
    before = signal.getsignal(signal.SIGINT)
    yield
    signal.signal(signal.SIGINT, before)


def interrupting(monitor: Monitor, moment: int) -> Callable[..., object]:
    """Ctrl-C right before a command to QEMU, and no other one."""
    execute, counted = monitor.execute, count()

    def executed(command: str, **arguments: object) -> object:
        if next(counted) == moment:
            signal.raise_signal(signal.SIGINT)
        return execute(command, **arguments)

    return executed


@pytest.mark.usefixtures("own_interrupt")
def test_interrupt_at_any_moment(
    server: RunningServer, machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It ends in one of two ways: nothing was changed, or it is said, and known, what was."""
    monkeypatch.setattr("preswapd.cli.park.balloon.STATS_SECONDS", 0.0)
    endings = []
    for moment in range(9):
        with closing(Monitor.at(machine.qmp)) as monitor:
            parker = Parker(parts(server, monitor, machine), Balloon(monitor))
            plan, interrupts = parker.plan(8 * MIB), Interrupts()
            interrupts.note()
            with pytest.MonkeyPatch.context() as patched:
                patched.setattr(monitor, "execute", interrupting(monitor, moment))
                with pytest.raises((KeyboardInterrupt, PartialError)) as raised:
                    parker.park(plan, interrupts, quiet=True)
        endings.append(raised.type)
        if raised.type is PartialError:
            assert str(raised.value).startswith("interrupted: g1 runs on with 16M of 32M; ")
        assert left(server) == (16 * MIB if raised.type is PartialError else 0)
        server.ctl("unpark", "g1", f"--qmp={machine.qmp}")
    assert endings == sorted(endings, key=lambda ending: ending is PartialError)
    assert set(endings) == {KeyboardInterrupt, PartialError}


@pytest.mark.usefixtures("own_interrupt")
def test_interrupt_of_unpark_ends_only_the_wait(server: RunningServer, machine: Machine) -> None:
    for moment in range(3):
        noted(server, machine)
        with closing(Monitor.at(machine.qmp)) as monitor:
            balloon, interrupts = Balloon(monitor), Interrupts()
            interrupts.note()
            with pytest.MonkeyPatch.context() as patched:
                patched.setattr(monitor, "execute", interrupting(monitor, moment))
                given = give_back(parts(server, monitor, machine), balloon, interrupts)
        assert interrupts.came
        assert given.is_all
        assert left(server) == 0
