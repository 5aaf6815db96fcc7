# SPDX-License-Identifier: BSD-3-Clause
"""`preswapd serve` from its start to its end: real processes, real sockets."""

import os
import re
import shutil
import signal
import socket
import subprocess
import time
import tomllib
from pathlib import Path

import nbd
import pytest

from preswapd.demo.server import ServerError
from tests.clients import connected
from tests.conftest import StartServer
from tests.running import PATIENCE, PRESWAPD, RunningServer, run, wait_until


def refused(server: RunningServer, *options: str) -> tuple[int, str]:
    """Exit status and complaint of a server on the same directories with more options."""
    done = run([*server.command(), *options])
    assert not done.stdout
    assert done.stderr.count("\n") == 1, f"not one line: {done.stderr}"
    return done.returncode, done.stderr


@pytest.fixture
def idle(tmp_path: Path, start_server: StartServer) -> RunningServer:
    """A server that was not started."""
    return start_server(start=False)


# --- start and stop ---


def test_ready_line_tells_where(server: RunningServer) -> None:
    line = server.wait_for_line("ready")
    assert str(server.nbd_socket) in line
    assert "g1" in line


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_signal_ends_it_with_status_0(server: RunningServer, number: int) -> None:
    assert server.stop(number) == 0


# LOG COMMAND…: started, waited for, and left; prints its process id.
IN_BACKGROUND = """
log=$1; shift
"$@" 2>"$log" & until grep -q ^ready "$log"; do sleep 0.1; done
echo $!
"""


def test_outlives_the_shell_that_started_it(idle: RunningServer) -> None:
    """As after `preswapd serve … &` and a logout."""
    log = idle.base / "log"
    shell = run(["/bin/sh", "-c", IN_BACKGROUND, "sh", str(log), *idle.command()])
    pid = int(shell.stdout)
    try:
        # A signal at the shell's end was sent before we knew of that end: it would wait to be
        # taken, or be taken already and end the server before ours can.
        status = Path(f"/proc/{pid}/status").read_text()
        assert re.search(r"^ShdPnd:\s*0+$", status, re.M)
        connected(idle).pwrite(b"page" * 1024, 4096)
        assert bytes(connected(idle).pread(4, 4096)) == b"page"
    finally:
        os.kill(pid, signal.SIGINT)
        wait_until(lambda: not idle.nbd_socket.exists(), "it to end")
    assert re.findall(r"stopping on (\w+)", log.read_text()) == ["SIGINT"]


def test_ends_with_its_parent_where_that_was_asked_for(idle: RunningServer) -> None:
    """As the demo's and these tests' servers do."""
    child = ["setpriv", "--pdeathsig=KILL", *idle.command()]
    shell = run(["/bin/sh", "-c", IN_BACKGROUND, "sh", str(idle.base / "log"), *child])
    wait_until(lambda: not Path(f"/proc/{int(shell.stdout)}/root").exists(), "it to end")
    assert idle.nbd_socket.exists()


# An nbdkit that says when it is called with WHAT, and goes on once it is told to.
WAITING_NBDKIT = """#!/bin/sh
case "$*" in *{what}*)
    echo here >{folder}/called
    read -r _ <{folder}/go-on
esac
exec {nbdkit} "$@"
"""


@pytest.mark.parametrize("what", ["--dump-plugin", "--foreground"])
def test_stop_before_it_is_ready(idle: RunningServer, tmp_path: Path, what: str) -> None:
    """While `preswapd serve` looks at the machine, and while it becomes nbdkit."""
    for name in ("called", "go-on"):
        os.mkfifo(tmp_path / name)
    script = tmp_path / "nbdkit"
    nbdkit = shutil.which("nbdkit")
    script.write_text(WAITING_NBDKIT.format(what=what, folder=tmp_path, nbdkit=nbdkit))
    script.chmod(0o755)
    env = {**os.environ, "PATH": f"{tmp_path}{os.pathsep}{os.environ['PATH']}"}
    with subprocess.Popen(idle.command(), stderr=subprocess.PIPE, text=True, env=env) as process:
        assert (tmp_path / "called").read_text() == "here\n"
        process.send_signal(signal.SIGTERM)
        (tmp_path / "go-on").write_text("\n")
        _, said = process.communicate(timeout=PATIENCE)
    assert process.returncode == 0
    assert "stopping on SIGTERM" in said


def test_clean_stop_removes_its_sockets(server: RunningServer) -> None:
    server.stop()
    assert not server.nbd_socket.exists()
    assert not server.control_socket.exists()


def test_pages_that_a_reboot_of_the_host_has_lost_are_told(server: RunningServer) -> None:
    connected(server).pwrite(b"page" * 1024, 4096)
    server.kill()
    server.reboot()
    server.start()
    told = server.wait_for_line("the pages of g1 were not saved before the host's reboot")
    assert told.endswith("reads fail until they are written or trimmed")


def test_starts_over_the_sockets_of_a_killed_one(server: RunningServer) -> None:
    server.kill()
    assert server.nbd_socket.exists()
    server.start()
    connected(server).shutdown()


def test_stop_with_a_client_connected(server: RunningServer) -> None:
    client = connected(server)
    assert server.stop() == 0
    with pytest.raises(nbd.Error):
        client.pread(512, 0)


def test_service_manager_is_told(start_server: StartServer, tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(tmp_path / "notify"))
        manager.settimeout(30)
        server = start_server(env={"NOTIFY_SOCKET": str(tmp_path / "notify")})
        assert manager.recv(4096).startswith(b"READY=1\n")
        server.stop()
        assert manager.recv(4096) == b"STOPPING=1"


def test_directories_and_files_are_private(server: RunningServer) -> None:
    modes = {
        path: path.stat().st_mode & 0o077
        for folder in (server.runtime_dir, server.shm_dir, server.state_dir)
        for path in (folder, *folder.iterdir())
        if path != server.nbd_socket
    }
    assert not any(modes.values()), modes


def test_log_of_a_quiet_life_is_short(server: RunningServer) -> None:
    server.stop()
    assert "Traceback" not in server.log
    assert len(server.lines) <= 3


# --- exports ---


def test_only_device_is_the_default_export(module_server: RunningServer) -> None:
    client = connected(module_server)
    assert client.get_size() == 64 << 20
    client.shutdown()


def test_unknown_export_is_refused_in_one_line(server: RunningServer) -> None:
    for _ in range(3):
        with pytest.raises(nbd.Error):
            connected(server, "other")
    assert "Traceback" not in server.log
    assert [line for line in server.lines if "'other'" in line] == server.lines[1:]


def test_several_devices_have_no_default(start_server: StartServer) -> None:
    server = start_server(devices={"g1": "64M", "g2": "1M"})
    with pytest.raises(nbd.Error):
        connected(server)
    assert connected(server, "g2").get_size() == 1 << 20


def test_export_list_names_all(start_server: StartServer) -> None:
    server = start_server(devices={"g1": "64M", "g2": "1M"})
    client = nbd.NBD()
    client.set_opt_mode(True)
    client.connect_unix(str(server.nbd_socket))
    names: list[str] = []
    client.opt_list(lambda name, description: names.append(name))
    client.opt_abort()
    assert names == ["g1", "g2"]


def test_server_without_devices(start_server: StartServer) -> None:
    server = start_server(devices={})
    with pytest.raises(nbd.Error):
        connected(server)
    assert server.json_stats()["devices"] == {}


def test_what_the_disk_says_of_itself(module_server: RunningServer) -> None:
    client = connected(module_server)
    can = ("flush", "fua", "trim", "zero", "fast_zero")
    assert {name: getattr(client, f"can_{name}")() for name in can} == dict.fromkeys(can, True)
    assert not client.can_multi_conn()
    assert not client.is_rotational()
    assert not client.is_read_only()
    assert not client.can_cache()
    sizes = (nbd.SIZE_MINIMUM, nbd.SIZE_PREFERRED, nbd.SIZE_MAXIMUM)
    assert [client.get_block_size(which) for which in sizes] == [1, 4096, 2 << 20]
    client.shutdown()


def test_tcp_on_loopback(start_server: StartServer) -> None:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    server = start_server(extra=[f"--listen=127.0.0.1:{port}"])
    client = nbd.NBD()
    client.connect_tcp("127.0.0.1", str(port))
    assert client.get_size() == 64 << 20
    client.shutdown()
    connected(server).shutdown()


def test_sockets_of_systemd(start_server: StartServer, idle: RunningServer) -> None:
    """As systemd does it: the socket is there before the server and outlives it."""
    idle.runtime_dir.mkdir(parents=True, mode=0o700)
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(idle.nbd_socket))
        listening.listen()
        script = 'exec 3<&$0; export LISTEN_PID=$$ LISTEN_FDS=1; exec "$@"'
        number = str(listening.fileno())
        idle.launch(["/bin/bash", "-c", script, number, *idle.command()], [listening.fileno()])
        connected(idle).shutdown()
        assert idle.stop() == 0
    assert idle.nbd_socket.exists()


@pytest.mark.parametrize("closed", ["<&-", "<&- >&-", "<&- >&- 2>&-"])
def test_start_without_standard_descriptors(idle: RunningServer, closed: str) -> None:
    """As under a supervisor that gives none; nbdkit alone would refuse."""
    command = ["/bin/sh", "-c", f'exec "$@" {closed}', "sh", *idle.command()]
    with subprocess.Popen(command, stderr=subprocess.PIPE) as process:
        connect_within(PATIENCE, idle).shutdown()
        process.terminate()
        assert process.wait(PATIENCE) == 0


def connect_within(seconds: float, server: RunningServer) -> nbd.NBD:
    """For a server whose ready line cannot be read."""
    deadline = time.monotonic() + seconds
    while True:
        try:
            return connected(server)
        except nbd.Error:
            assert time.monotonic() < deadline, "no server answers"
            time.sleep(0.02)


# --- refusals ---


@pytest.mark.parametrize(
    "options",
    [
        ["--pool-size=1M"],
        ["--pool-size=12X"],
        ["--device=g1"],
        ["--device=bad/name=1M"],
        ["--device=g2=1000"],
        ["--device=g2=4K"],
        ["--device=g1=32M"],
        ["--compress=gzip"],
        ["--threads=0"],
        ["--threads=x"],
        ["--listen=0.0.0.0:10809"],
        ["--listen=[::]:10809"],
        ["--instance=a/b"],
        ["--config=/nonexistent.toml"],
        ["--runtime-dir="],
        ["--no-such-option"],
        ["surplus"],
    ],
    ids=lambda options: options[0],
)
def test_bad_options_exit_2(idle: RunningServer, options: list[str]) -> None:
    status, _ = refused(idle, *options)
    assert status == 2
    assert not idle.runtime_dir.exists()


def test_pool_size_is_required() -> None:
    done = run([PRESWAPD, "serve", "--instance=none"])
    assert done.returncode == 2
    assert "--pool-size" in done.stderr


def test_bad_config_value_exits_2_with_its_line(idle: RunningServer, tmp_path: Path) -> None:
    path = tmp_path / "vm1.toml"
    path.write_text('pool-size = "32M"\n\ncompres = "lz4"\n')
    status, text = refused(idle, f"--config={path}")
    assert status == 2
    assert f"{path}:3: unknown key 'compres'" in text


@pytest.mark.parametrize("shared", ["runtime-dir", "shm-dir", "state-dir"])
@pytest.mark.parametrize("more", [[], ["--discard-state"]], ids=["plain", "discard"])
def test_second_server_is_refused(
    module_server: RunningServer, start_server: StartServer, shared: str, more: list[str]
) -> None:
    other = start_server(start=False)
    directory = getattr(module_server, shared.replace("-", "_"))
    status, text = refused(other, f"--{shared}={directory}", *more)
    assert status == 4
    assert f"{directory} is in use by another server: " in text
    assert text.endswith(f"give another --{shared}\n")
    assert module_server.json_stats()["instance"] == "default"


def test_shared_memory_not_on_a_tmpfs(idle: RunningServer, tmp_path: Path) -> None:
    status, text = refused(idle, f"--shm-dir={tmp_path / 'shm'}")
    assert status == 4
    assert "tmpfs" in text


def test_pool_larger_than_the_file_system(idle: RunningServer) -> None:
    status, text = refused(idle, "--pool-size=1000T")
    assert status == 4
    assert "does not fit" in text


def test_no_nbdkit(idle: RunningServer, tmp_path: Path) -> None:
    """The interpreter's own directory comes first in PATH, so it must not hold nbdkit either."""
    (tmp_path / "empty").mkdir()
    done = run(idle.command(), env={"PATH": str(tmp_path / "empty")})
    assert done.returncode == 4
    assert "nbdkit is not installed" in done.stderr


# --- --show-config ---


def test_show_config_prints_and_does_nothing(idle: RunningServer) -> None:
    done = run([*idle.command(), "--show-config"])
    shown = tomllib.loads(done.stdout)
    assert shown["pool-size"] == "32M"
    assert shown["device"] == {"g1": {"size": "64M"}}
    assert not idle.runtime_dir.exists()


def test_shown_config_serves_the_same(idle: RunningServer, tmp_path: Path) -> None:
    path = tmp_path / "shown.toml"
    path.write_text(run([*idle.command(), "--show-config"]).stdout)
    idle.launch([PRESWAPD, "serve", f"--config={path}"])
    assert idle.json_stats()["devices"].keys() == {"g1"}


def test_help_needs_no_server() -> None:
    done = run([PRESWAPD, "serve", "--help"])
    assert done.returncode == 0
    assert "Example" in done.stdout


# --- what a client can do to it ---


def test_hanging_up_with_requests_in_flight(server: RunningServer) -> None:
    """Older nbdkits abort on this when several threads serve one connection."""
    for _ in range(30):
        client = connected(server)
        buffers = [nbd.Buffer(1 << 20) for _ in range(16)]
        for number, buffer in enumerate(buffers):
            client.aio_pread(buffer, number << 20)
        del client
    connected(server).shutdown()


def test_top_can_tell_its_threads_apart(module_server: RunningServer) -> None:
    tasks = Path(f"/proc/{module_server.pid}/task").glob("*/comm")
    names = {path.read_text().strip() for path in tasks}
    assert names >= {"watch", "maintenance", "compression", "writeback", "recompression"}


def test_descriptors_are_not_leaked(server: RunningServer) -> None:
    def descriptors() -> int:
        return len(os.listdir(f"/proc/{server.pid}/fd"))

    connected(server).shutdown()
    before = descriptors()
    for _ in range(20):
        connected(server).shutdown()
        server.json_stats()
    assert descriptors() <= before + 2


def test_failed_start_is_told(tmp_path: Path) -> None:
    (tmp_path / "state").write_text("")
    with pytest.raises(ServerError, match="is not a directory, or is a symbolic link"):
        RunningServer(tmp_path)
