"""Small files that are there in full or not at all, also after a crash of the host."""

import os
from pathlib import Path

FRESH = ".new"


def write_file(path: Path, content: bytes) -> None:
    """Replaces the file's content in one step."""
    fresh = fresh_name(path)
    descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        publish(path)
    except BaseException:
        fresh.unlink(missing_ok=True)
        raise


def fresh_name(path: Path) -> Path:
    return path.with_name(path.name + FRESH)


def publish(path: Path) -> None:
    """What was made under the fresh name gets its own."""
    fresh_name(path).rename(path)
    sync_directory(path.parent)


def sync_directory(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
