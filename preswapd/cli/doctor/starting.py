# SPDX-License-Identifier: BSD-3-Clause
"""What starts an instance, as a command: its unit, what started it last, or one for a new one."""

import os
import pwd
from pathlib import Path
from shlex import join, quote

from preswapd.api.last_start import LastStart
from preswapd.cli.doctor.units import is_installed, units_installed
from preswapd.cli.typed import serve
from preswapd.host.container import SHARED_MEMORY
from preswapd.host.file_locks import holder
from preswapd.host.filesystems import is_directory, is_there, total_bytes
from preswapd.host.processes import PROC, age, is_stopped, unit_of
from preswapd.paths import (
    CONFIG_ROOT,
    INSTANCE_NAME,
    SYSTEM_RUNTIME_ROOT,
    InstancePaths,
    RuntimePaths,
    config_file,
)
from preswapd.units import exact_size

ROOT = Path("/")
SUFFIX, DROP_INS = ".toml", ".toml.d"
UNIT = "preswapd@{name}.service"
# Of a new instance: what many hosts can spare, and the example of the documents.
POOL, DEVICE = 2 << 30, "swap0"
# The process that a container ends with.
FIRST = 1
# A start that reads in a large pool takes seconds.
LONGEST_START = 60.0


def start(runtime_dir: Path, root: Path = ROOT) -> str:
    last_start = LastStart.read(RuntimePaths(runtime_dir).last_start)
    if last_start and last_start.unit and is_installed(root, last_start.unit):
        return f"systemctl start {quote(last_start.unit)}"
    name = runtime_dir.name
    has_unit = runtime_dir.parent == SYSTEM_RUNTIME_ROOT and units_installed(root)
    if has_unit and is_configured(name):
        return f"systemctl start {UNIT.format(name=name)}"
    if last_start:
        return again(last_start, runtime_dir)
    if is_configured(name):
        return serve(runtime_dir)
    return new_unit(name) if has_unit else new(runtime_dir)


def again(last_start: LastStart, runtime_dir: Path) -> str:
    """What started it the last time, by its user and from where it was typed."""
    command = join(last_start.command)
    user = runtime_dir.stat().st_uid
    if user != os.geteuid():
        command = f"runuser -u {quote(name_of(user))} -- {command}"
    if last_start.directory == os.getcwd():
        return command
    return f"(cd {quote(last_start.directory)} && {command})"


def name_of(user: int) -> str:
    try:
        return pwd.getpwuid(user).pw_name
    except KeyError:
        return str(user)


def new(runtime_dir: Path) -> str:
    return serve(runtime_dir, "--pool-size", pool_size(), "--device", f"{DEVICE}=8G")


def new_unit(name: str) -> str:
    """With a configuration, which its unit cannot do without."""
    lines = rf'pool-size = "{pool_size()}"\n\n[device.{DEVICE}]\nsize = "8G"\n'
    write = f"mkdir -p {CONFIG_ROOT} && printf '{lines}' >{config_file(name)}"
    return f"{write} && systemctl enable --now {UNIT.format(name=name)}"


def pool_size() -> str:
    """One that the host's shared memory has room for."""
    total = total_bytes(SHARED_MEMORY) if SHARED_MEMORY.is_dir() else 0
    return exact_size(min(POOL, total // 2 >> 20 << 20) if total else POOL)


# --- what is configured ---


def is_configured(name: str) -> bool:
    """What cannot be seen may be configured: nothing is to be written over it."""
    path = config_file(name)
    try:
        return is_there(path) or is_directory(path.with_name(f"{path.name}.d"))
    except OSError:
        return True


def configured() -> list[str]:
    """The instances that have a file, or drop-ins."""
    try:
        found = os.listdir(CONFIG_ROOT)
    except OSError:
        return []
    names = {
        name.removesuffix(suffix)
        for name in found
        for suffix in (SUFFIX, DROP_INS)
        if name.endswith(suffix)
    }
    return sorted(name for name in names if INSTANCE_NAME.fullmatch(name))


# --- one that is there and does not answer ---


def revive(runtime_dir: Path) -> tuple[str, str | None]:
    """What to do with it, and the command for that."""
    _, lock, _ = InstancePaths(runtime_dir, runtime_dir, runtime_dir).locks
    pid = holder(lock)
    if pid is None:
        return "see its log: it is starting or ending", None
    if pid == FIRST:
        # Nobody in the container can kill it, and nobody would be there to start another one.
        return (
            "it is the container's first process, and hangs: restart the container, which loses no"
            " page where shared memory and disk files are the host's",
            None,
        )
    if is_stopped(pid):
        return f"process {pid} is stopped (SIGSTOP); let it go on", f"kill -CONT {pid}"
    seconds = age(pid)
    if seconds is not None and seconds < LONGEST_START:
        return (
            f"process {pid} started {seconds:.0f} s ago and may still read in its pages: wait",
            None,
        )
    last_start = LastStart.read(RuntimePaths(runtime_dir).last_start)
    unit = unit_of(PROC / str(pid) / "cgroup")
    if last_start and unit and unit == last_start.unit:
        name = quote(unit)
        kill = f"systemctl kill --signal=KILL {name} && systemctl restart {name}"
    else:
        # Its directories are free once it has ended.
        kill = f"kill -KILL {pid} && tail --pid={pid} -f /dev/null && {start(runtime_dir)}"
    return f"process {pid} hangs; a kill and a start lose no page", kill
