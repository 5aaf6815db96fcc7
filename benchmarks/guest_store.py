# SPDX-License-Identifier: BSD-3-Clause
"""The store (store.c) as it runs in a guest, beside other things, and what it says of itself."""

import time

from benchmarks.guest_jobs import Served, served, store
from preswapd.guest.machine import Guest

FILL_SECONDS = 120.0
POLL_SECONDS = 0.3


class RunningStore:
    """One that serves requests for as long as its guest lives; filled when this is made."""

    def __init__(self, guest: Guest, mib: int, writes: int) -> None:
        """`writes`: per cent of the requests, which go to all records alike."""
        self.guest = guest
        command = store(mib, 0, writes=writes, popular=100)
        self.job = guest.start("store", f"exec {command}")
        deadline = time.monotonic() + FILL_SECONDS
        while "ready" not in guest.run(f"cat {self.job.log}", check=False).output:
            if time.monotonic() > deadline:
                raise TimeoutError("the store in the guest is not ready")
            time.sleep(POLL_SECONDS)

    def window_ends(self) -> Served:
        """The requests since the last time: some ten milliseconds go by until it has heard."""
        log = self.job.log
        lines = int(self.guest.run(f"wc -l <{log}").output)
        self.guest.run(
            f"kill -USR1 $(pidof store); while [ $(wc -l <{log}) = {lines} ]; do usleep 10000; done"
        )
        return served(self.guest.run(f"tail -n 1 {log}").output)
