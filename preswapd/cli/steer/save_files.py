# SPDX-License-Identifier: BSD-3-Clause
"""Where a save goes, and where it comes from: a file or a pipe."""

import errno
import os
import stat
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from preswapd.commandline import closed
from preswapd.errors import PreswapError, RefusedError, UsageError
from preswapd.host.filesystems import is_directory, is_file

PIPE = Path("-")
STANDARD_INPUT, STANDARD_OUTPUT = 0, 1
READ_BYTES = 1 << 20
# What a file system answers that knows of no file without a name.
NAMELESS_UNKNOWN = {errno.EOPNOTSUPP, errno.EISDIR, errno.ENOENT, errno.EINVAL}


@contextmanager
def failures(path: Path) -> Iterator[None]:
    """Around what is done with the file: its errors are none of the server's."""
    try:
        yield
    except BrokenPipeError:
        raise PreswapError("whoever reads the pipe has closed it") from None
    except OSError as error:
        raise PreswapError(f"{shown(path)}: {error.strerror}") from None


def shown(path: Path) -> str:
    return "standard output" if path == PIPE else str(path)


# --- out ---


class Output:
    """A file that is there in full or not at all, or a pipe, which is told by what it gets."""

    def __init__(self, path: Path, descriptor: int) -> None:
        self.path = path
        self.descriptor = descriptor
        self.bytes = 0

    def write(self, piece: bytes) -> None:
        with failures(self.path), memoryview(piece) as view:
            at = 0
            while at < len(view):
                at += os.write(self.descriptor, view[at:])
        self.bytes += len(piece)

    def publish(self) -> None:
        """All of it was written."""

    def give_up(self) -> None:
        """Not all of it was."""


class NewFile(Output):
    """Without a name until it is whole, where the file system can; nobody else may read it."""

    def __init__(self, path: Path, *, over: bool) -> None:
        self.over = over
        self.final = Path(os.path.realpath(path))
        self.beside: Path | None = None
        with failures(path):
            super().__init__(path, self.opened())

    def opened(self) -> int:
        flags = os.O_WRONLY | os.O_CLOEXEC
        try:
            return os.open(self.final.parent, flags | os.O_TMPFILE, 0o600)
        except OSError as error:
            if error.errno not in NAMELESS_UNKNOWN:
                raise
        descriptor = os.open(self.temporary, flags | os.O_CREAT | os.O_EXCL, 0o600)
        self.beside = self.temporary
        return descriptor

    @property
    def temporary(self) -> Path:
        return self.final.with_name(f".{self.final.name}.{os.getpid()}")

    def publish(self) -> None:
        """On disk first, then under its name, and then the name."""
        with failures(self.path):
            os.fsync(self.descriptor)
            directory = os.open(self.final.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            try:
                self.get_name(directory)
                os.fsync(directory)
            finally:
                os.close(directory)

    def get_name(self, directory: int) -> None:
        if not self.over:
            # Fails where somebody has made one meanwhile.
            self.link(self.final, directory)
            self.give_up()
            return
        if self.beside is None:
            self.link(self.temporary, directory)
            self.beside = self.temporary
        self.beside.rename(self.final)
        self.beside = None

    def link(self, to: Path, directory: int) -> None:
        source = f"/proc/self/fd/{self.descriptor}" if self.beside is None else self.beside
        # Without a directory Python would make a link to the link in /proc.
        os.link(source, to.name, dst_dir_fd=directory, follow_symlinks=True)

    def give_up(self) -> None:
        if self.beside is not None:
            with suppress(OSError):
                self.beside.unlink(missing_ok=True)
            self.beside = None


def is_there(path: Path) -> bool:
    """A file that would be written over.  UsageError for what cannot be one."""
    if path == PIPE:
        if os.isatty(sys.stdout.fileno()):
            raise UsageError("a save is no text: name a file, or a pipe behind the -")
        if STANDARD_OUTPUT in closed:
            raise UsageError("standard output is closed: name a file, or a pipe behind the -")
        return False
    with failures(path):
        if not os.path.lexists(path):
            if not is_directory(path.parent):
                raise UsageError(f"there is no directory {path.parent}")
            return False
        mode = path.stat().st_mode
    if stat.S_ISDIR(mode) or stat.S_ISBLK(mode):
        raise UsageError(f"{path} is no file: name one, or - for standard output")
    return stat.S_ISREG(mode)


@contextmanager
def output(path: Path, *, over: bool) -> Iterator[Output]:
    """`over`: one that is there may be written over.  Left with an error it is as it was."""
    into = opened(path, over)
    try:
        yield into
        into.publish()
    except BaseException:
        into.give_up()
        raise
    finally:
        if path != PIPE:
            os.close(into.descriptor)


def opened(path: Path, over: bool) -> Output:
    if path == PIPE:
        return Output(path, sys.stdout.fileno())
    if over or not os.path.lexists(path):
        return NewFile(path, over=over)
    with failures(path):
        if is_file(path):
            raise RefusedError(f"{path} is there by now; nothing was changed")
        return Output(path, os.open(path, os.O_WRONLY | os.O_CLOEXEC))


# --- in ---


@contextmanager
def input_of(path: Path) -> Iterator[Iterator[bytes]]:
    """Its pieces.  UsageError for a terminal."""
    if path == PIPE:
        if os.isatty(sys.stdin.fileno()):
            raise UsageError("a save comes from a file or a pipe: nobody types one")
        if STANDARD_INPUT in closed:
            raise UsageError("standard input is closed: name a file, or a pipe behind the -")
        yield pieces(path, sys.stdin.fileno())
        return
    with failures(path):
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        yield pieces(path, descriptor)
    finally:
        os.close(descriptor)


def pieces(path: Path, descriptor: int) -> Iterator[bytes]:
    while True:
        with failures(path):
            piece = os.read(descriptor, READ_BYTES)
        if not piece:
            return
        yield piece
