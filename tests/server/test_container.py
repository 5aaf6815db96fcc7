# SPDX-License-Identifier: BSD-3-Clause
"""A server as the first process of namespaces of its own, as in a container: what stays of it."""

import json
import os
import signal
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import nbd
import pytest

from preswapd.cli.doctor.container import check_limit
from preswapd.cli.doctor.finding import NOTE, OK
from preswapd.host.container import HOSTS, Mount, ends_with_us, engine, mount_of
from preswapd.units import PAGE_SIZE as PAGE
from tests.clients import BEHIND_ZONE, connected
from tests.faults.test_memory import LIMIT, memory_cgroup  # noqa: F401 - a fixture
from tests.running import IS_SANITIZED, PRESWAPCTL, RunningServer, run

NAMESPACES = ("--mount", "--pid", "--ipc")
needs_namespaces = pytest.mark.skipif(
    os.geteuid() != 0
    or bool(run(["unshare", *NAMESPACES, "--fork", "mount", "--make-rprivate", "/"]).returncode),
    reason="this environment does not let us make namespaces and mount",
)
OWN = "mount -t tmpfs -o size=64M,mode=700 shm"
HOSTS_DIRECTORY = "mount --bind"
DATA = bytes(range(256)) * (PAGE // 256)


class Contained(RunningServer):
    """Each life is a container: a new one."""

    def __init__(self, tmp: Path, shared_memory: str) -> None:
        """`shared_memory`: what is mounted at its place, as a command without that."""
        super().__init__(tmp, start=False)
        self.outside = self.base / "outside"
        self.outside.mkdir(mode=0o700)
        self.shm_dir.mkdir(mode=0o700)
        if shared_memory == HOSTS_DIRECTORY:
            shared_memory += f" {self.outside}"
        self.mounting = f"{shared_memory} {self.shm_dir}"
        self.cgroup: Path | None = None

    def start(self) -> None:
        joining = f"echo $$ >{self.cgroup}/cgroup.procs && " if self.cgroup else ""
        making = f"mount --make-rprivate / && mount -t proc proc /proc && {self.mounting}"
        unshare = ["unshare", *NAMESPACES, "--fork", "--kill-child"]
        inside = ["sh", "-c", f'{making} && exec "$@"', "sh", *self.command()]
        self.launch(["sh", "-c", f'{joining}exec "$@"', "sh", *unshare, *inside])

    @property
    def first(self) -> int:
        """Its first process, which is the server, as it is seen from here."""
        return int(Path(f"/proc/{self.pid}/task/{self.pid}/children").read_text())

    def kill(self) -> None:
        """Its first process, whose end is that of all others."""
        if self.child is not None:
            os.kill(self.first, signal.SIGKILL)
            self.wait()

    def doctor(self) -> list[dict[str, Any]]:
        """What it says inside."""
        enter = ["nsenter", f"--target={self.first}", *NAMESPACES]
        joining = f"echo $$ >{self.cgroup}/cgroup.procs; " if self.cgroup else ""
        doctor = [PRESWAPCTL, f"--runtime-dir={self.runtime_dir}", "--json", "doctor"]
        done = run(["sh", "-c", f'{joining}exec "$@"', "sh", *enter, *doctor])
        assert done.stdout, done.stderr
        found: list[dict[str, Any]] = json.loads(done.stdout)["checks"]
        return [check for check in found if "container" in check["subject"]]


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    with ExitStack() as stack:
        yield stack


def contained(stack: ExitStack, tmp: Path, shared_memory: str) -> Contained:
    return stack.enter_context(Contained(tmp, shared_memory))


@needs_namespaces
def test_pages_in_its_own_shared_memory_go_with_it_and_are_no_zeros(
    stack: ExitStack, tmp_path: Path
) -> None:
    server = contained(stack, tmp_path, OWN)
    server.start()
    connected(server).pwrite(DATA, BEHIND_ZONE)
    server.kill()
    done = run(["unshare", *NAMESPACES, "--fork", *server.command()])
    assert done.returncode == 4
    assert "the pages of g1 that were in shared memory are gone" in done.stderr


@needs_namespaces
def test_end_in_order_says_what_was_in_its_own_shared_memory(
    stack: ExitStack, tmp_path: Path
) -> None:
    """What was on disk is read, what was in memory is an error."""
    server = contained(stack, tmp_path, OWN)
    server.start()
    client = connected(server)
    client.pwrite(DATA, BEHIND_ZONE)
    client.pwrite(DATA, BEHIND_ZONE + PAGE, flags=nbd.CMD_FLAG_FUA)
    os.kill(server.first, signal.SIGTERM)
    assert server.wait() == 0
    server.start()
    client = connected(server)
    assert bytes(client.pread(PAGE, BEHIND_ZONE + PAGE)) == DATA
    with pytest.raises(nbd.Error, match="Input/output error"):
        client.pread(PAGE, BEHIND_ZONE)


@needs_namespaces
def test_pages_in_a_directory_of_the_hosts_stay(stack: ExitStack, tmp_path: Path) -> None:
    server = contained(stack, tmp_path, HOSTS_DIRECTORY)
    server.start()
    connected(server).pwrite(DATA, BEHIND_ZONE)
    server.kill()
    assert (server.outside / "arena").exists()
    server.start()
    assert bytes(connected(server).pread(PAGE, BEHIND_ZONE)) == DATA


@needs_namespaces
def test_first_process_ends_in_order_with_its_clients(stack: ExitStack, tmp_path: Path) -> None:
    """To the first process of a tree a signal means nothing, unless it waits for it."""
    server = contained(stack, tmp_path, HOSTS_DIRECTORY)
    server.start()
    assert server.client.facts().pid == 1
    connected(server).pwrite(DATA, BEHIND_ZONE)
    os.kill(server.first, signal.SIGTERM)
    assert server.wait() == 0
    assert "stopping on SIGTERM" in server.log
    server.start()
    assert bytes(connected(server).pread(PAGE, BEHIND_ZONE)) == DATA


@needs_namespaces
def test_doctor_says_what_goes_with_it(stack: ExitStack, tmp_path: Path) -> None:
    server = contained(stack, tmp_path, OWN)
    server.start()
    found = server.doctor()
    (going,) = [check for check in found if f"{server.shm_dir}, with" in check["text"]]
    assert going["status"] == NOTE
    assert "goes with the container: it is on a tmpfs of its own, of 64M" in going["text"]
    assert going["mend"].endswith(f"-v {server.shm_dir}:{server.shm_dir}")
    assert any("the server is process 1" in check["text"] for check in found)


@needs_namespaces
def test_doctor_outside_looks_at_the_right_process(stack: ExitStack, tmp_path: Path) -> None:
    """And not at the one that has the server's own number here."""
    server = contained(stack, tmp_path, HOSTS_DIRECTORY)
    server.start()
    text = server.ctl("doctor", check=False).stdout
    assert f"process {server.first} (1 in its container)" in text


@needs_namespaces
@pytest.mark.skipif(IS_SANITIZED, reason="a sanitizer needs more than the cgroup's limit")
def test_doctor_is_content_with_a_directory_of_the_hosts(
    stack: ExitStack,
    tmp_path: Path,
    memory_cgroup: Path,  # noqa: F811
) -> None:
    server = contained(stack, tmp_path, HOSTS_DIRECTORY)
    server.cgroup = memory_cgroup
    server.start()
    found = server.doctor()
    (kept,) = [check for check in found if f"{server.shm_dir}, with" in check["text"]]
    assert (kept["status"], kept["text"].endswith("stays when the container goes")) == (OK, True)
    limit = f"its memory limit is {LIMIT >> 20}M, "
    assert any(check["text"].startswith(limit) for check in found)
    server.kill()


def test_limit_that_cannot_be_seen_is_said() -> None:
    assert check_limit([]).status == NOTE


# --- by what a container leaves in files ---


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Of a host."""
    namespaces = tmp_path / "proc/self/ns"
    namespaces.mkdir(parents=True)
    for kind, name in HOSTS.items():
        (namespaces / kind).symlink_to(name)
    return tmp_path


def confine(root: Path) -> None:
    link = root / "proc/self/ns/pid"
    link.unlink()
    link.symlink_to("pid:[4026532001]")


def test_host_is_no_container_although_its_image_was_one(root: Path) -> None:
    (root / ".dockerenv").touch()
    assert engine(root, {"container": "podman"}) == ""


@pytest.mark.parametrize(
    ("file", "text", "environment", "name"),
    [
        ("run/.containerenv", "", {}, "podman"),
        (".dockerenv", "", {}, "docker"),
        (".dockerenv", "", {"KUBERNETES_SERVICE_HOST": "10.0.0.1"}, "Kubernetes"),
        ("run/systemd/container", "lxc\n", {}, "lxc"),
        ("proc/1/environ", "A=b\0container=podman\0C=d\0", {}, "podman"),
        ("nothing", "", {"container": "systemd-nspawn"}, "systemd-nspawn"),
        ("nothing", "", {}, "namespaces"),
    ],
)
def test_what_made_the_container(
    root: Path, file: str, text: str, environment: dict[str, str], name: str
) -> None:
    confine(root)
    (root / file).parent.mkdir(parents=True, exist_ok=True)
    (root / file).write_text(text)
    assert engine(root, environment) == name


MOUNTS = """\
69 45 0:31 / / rw,relatime - overlay overlay rw,lowerdir=/a
78 69 0:39 / /dev/shm rw,nosuid - tmpfs shm rw,size=64000k
84 78 0:27 /preswapd-vm1 /dev/shm/preswapd-vm1 rw - tmpfs tmpfs rw
85 69 254:0 /srv/a\\040b /var/lib/preswapd rw,relatime shared:1 - ext4 /dev/vda rw
86 69 0:50 / /run rw - tmpfs tmpfs rw
"""


@pytest.mark.parametrize(
    ("path", "place", "part", "kind", "ends"),
    [
        ("/var/lib/preswapd/vm1", "/var/lib/preswapd", "/srv/a b", "ext4", False),
        ("/dev/shm/preswapd-vm1", "/dev/shm/preswapd-vm1", "/preswapd-vm1", "tmpfs", False),
        ("/dev/shm/preswapd-vm2", "/dev/shm", "/", "tmpfs", True),
        ("/run/preswapd/vm1", "/run", "/", "tmpfs", True),
        ("/srv", "/", "/", "overlay", True),
    ],
)
def test_which_file_systems_end_with_it(
    root: Path, path: str, place: str, part: str, kind: str, ends: bool
) -> None:
    own = root / "proc/self"
    (own / "mountinfo").write_text(MOUNTS)
    (own / "ns/ipc").unlink()
    (own / "ns/ipc").symlink_to("ipc:[4026532002]")
    found = mount_of(Path(path), own)
    assert found == Mount(Path(place), part, kind)
    assert ends_with_us(found, own) == ends


def test_layer_that_an_engine_without_root_makes_ends_with_it(root: Path) -> None:
    mount = Mount(Path("/"), "/", "fuse.fuse-overlayfs")
    assert ends_with_us(mount, root / "proc/self")


def test_shared_memory_of_the_host_stays(root: Path) -> None:
    """As with --ipc=host."""
    assert not ends_with_us(Mount(Path("/dev/shm"), "/", "tmpfs"), root / "proc/self")
