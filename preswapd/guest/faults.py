# SPDX-License-Identifier: BSD-3-Clause
"""What can go wrong with a guest.

GuestError           the base: a guest could not be made, or did not do what it was asked
├── SetupError       something on this host is missing: it says what to install
├── LostGuestError   QEMU ended or the guest's kernel panicked; carries the console's last lines
├── GuestTimeoutError  the guest still runs but did not answer in time
└── CommandError     a command in the guest ended with a status other than 0
"""

from preswapd.errors import PreswapError


class GuestError(PreswapError):
    """Base of everything below."""


class SetupError(GuestError):
    """This host lacks something that a guest needs."""


class LostGuestError(GuestError):
    """The guest is gone; `console` holds what it said last."""

    def __init__(self, message: str, console: str = "") -> None:
        super().__init__(message)
        self.console = console
        if console:
            self.add_note(f"The console's last lines:\n{console}")


class GuestTimeoutError(GuestError):
    """No answer in time."""

    def __init__(self, message: str, console: str = "") -> None:
        super().__init__(message)
        self.console = console
        if console:
            self.add_note(f"The console's last lines:\n{console}")


class CommandError(GuestError):
    """A command in the guest failed."""
