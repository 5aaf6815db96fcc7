# SPDX-License-Identifier: BSD-3-Clause
"""A network between two Unix sockets that can be cut."""

import socket
import threading
from contextlib import suppress
from pathlib import Path
from typing import Self

PIECE = 1 << 18


class Relay:
    """Who connects to `at` reaches `to`, until it is cut: then all connections end, and new ones do
    at once."""

    def __init__(self, at: Path, to: Path) -> None:
        self.at, self.to = at, to
        self._lock = threading.Lock()
        self._ends: list[socket.socket] = []
        self._is_cut = False
        self._listening = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._listening.bind(str(at))
        self._listening.listen()
        self._carriers = [threading.Thread(target=self._accept, daemon=True)]
        self._carriers[0].start()

    def cut(self) -> None:
        with self._lock:
            self._is_cut = True
            for end in self._ends:
                with suppress(OSError):
                    end.shutdown(socket.SHUT_RDWR)

    def mend(self) -> None:
        with self._lock:
            self._is_cut = False

    def _accept(self) -> None:
        while True:
            try:
                here, _ = self._listening.accept()
            except OSError:
                return
            there = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            with self._lock:
                try:
                    if self._is_cut:
                        raise ConnectionRefusedError
                    there.connect(str(self.to))
                except OSError:
                    here.close()
                    there.close()
                    continue
                self._ends += [here, there]
            carrier = threading.Thread(target=self._carry, args=(here, there), daemon=True)
            self._carriers.append(carrier)
            carrier.start()

    def _carry(self, here: socket.socket, there: socket.socket) -> None:
        back = threading.Thread(target=copy, args=(there, here), daemon=True)
        back.start()
        copy(here, there)
        back.join()
        with self._lock:
            for end in (here, there):
                self._ends.remove(end)
                end.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.cut()
        # close() alone leaves accept() waiting.
        with suppress(OSError):
            self._listening.shutdown(socket.SHUT_RDWR)
        for carrier in self._carriers:
            carrier.join()
        self._listening.close()
        self.at.unlink()


def copy(one: socket.socket, other: socket.socket) -> None:
    """All that comes, and the end of it."""
    with suppress(OSError):
        while piece := one.recv(PIECE):
            other.sendall(piece)
    with suppress(OSError):
        other.shutdown(socket.SHUT_WR)
