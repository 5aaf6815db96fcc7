# SPDX-License-Identifier: BSD-3-Clause
"""What lies on disk of a device goes, whatever comes in between: rule K7 of docs/concurrency.md."""

from dataclasses import replace

from preswapd.errors import RefusedError
from preswapd.paths import StatePaths
from preswapd.preswap.files.disk_file import remove_disk_file
from preswapd.preswap.files.durable import remove_file, sync_directory
from preswapd.preswap.files.sidecar import Sidecar


def remove_state(paths: StatePaths, name: str) -> None:
    """The sidecar says so first.  A power cut would otherwise leave a sidecar without a disk file,
    or a disk file of nobody's, and the next start would refuse either."""
    say_so(paths, name)
    remove_disk_file(paths.disk_file(name))
    remove_file(paths.saved_map(name))
    remove_file(paths.source(name))
    sync_directory(paths.state_dir)
    remove_file(paths.sidecar(name))
    sync_directory(paths.state_dir)


def say_so(paths: StatePaths, name: str) -> None:
    path = paths.sidecar(name)
    try:
        sidecar = Sidecar.read(path)
    except RefusedError:
        # It has none yet, or none that could say anything.
        remove_file(path)
        sync_directory(paths.state_dir)
        return
    # Dirty, for an older release, which takes it for a device.
    replace(sidecar.settled(), removed=True, clean=False, tmem_dirty=True).write(path)
