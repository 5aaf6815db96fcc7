"""How the demonstration fails other than by a check."""

from preswapd.errors import PreswapError


class DemoError(PreswapError):
    """A step could not be carried out; `log` holds the server's last lines where it is at fault."""

    def __init__(self, message: str, log: str = "") -> None:
        super().__init__(message)
        if log:
            self.add_note(f"The server's last lines:\n{log}")
