# SPDX-License-Identifier: BSD-3-Clause
"""Whether systemd's logind deletes a user's shared memory at logout (logind.conf(5), RemoveIPC)."""

import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

RUNNING = Path("/run/systemd/seats")
# What lies in an earlier one hides what has the same name in later ones (systemd.syntax(7)).
FOLDERS = ("/etc/systemd", "/run/systemd", "/usr/local/lib/systemd", "/usr/lib/systemd")
FILES = tuple(f"{folder}/logind.conf" for folder in FOLDERS)
DROP_INS = tuple(f"{folder}/logind.conf.d" for folder in FOLDERS)
SECTION, KEY = "[Login]", "RemoveIPC"
# systemd regards smaller numbers as a system's, unless it was built otherwise; it leaves theirs.
FIRST_ORDINARY_USER = 1000
# What systemd takes for a yes, and for a no.
YES = {"yes", "y", "true", "t", "on", "1"}
NO = {"no", "n", "false", "f", "off", "0"}


def is_ordinary(user: int) -> bool:
    return user >= FIRST_ORDINARY_USER


def deletes_shared_memory_of(user: int) -> bool:
    return is_ordinary(user) and RUNNING.is_dir() and removes_ipc()


def removes_ipc() -> bool:
    """Its default is yes; the last setting that says yes or no counts, an empty one says neither.

    Of the main files only the first is read, then one drop-in of each name, sorted by name.
    """
    removes = True
    with suppress(ValueError):
        for text in [main_file(), *drop_ins()]:
            for value in values_in(text):
                if value in YES | NO:
                    removes = value in YES
    return removes


def main_file() -> str:
    for path in FILES:
        text = text_of(Path(path))
        if text is not None:
            return text
    return ""


def drop_ins() -> list[str]:
    texts: dict[str, str] = {}
    for folder in DROP_INS:
        for name in names_in(folder):
            text = None if name in texts else text_of(Path(folder, name))
            if text is not None:
                texts[name] = text
    return [texts[name] for name in sorted(texts)]


def names_in(folder: str) -> list[str]:
    with suppress(OSError):
        return [
            name
            for name in os.listdir(folder)
            if name.endswith(".conf") and not name.startswith(".")
        ]
    return []


def text_of(path: Path) -> str | None:
    """None where there is no file: a directory or a link to nothing hides none, /dev/null does."""
    try:
        return path.read_text(errors="replace")
    except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
        return None
    except OSError:
        return ""  # it is there, and systemd can read it


def values_in(text: str) -> Iterator[str]:
    """In small letters.  ValueError at a damaged heading: systemd reads nothing more behind it,
    nor any further file.  configparser would drop a file for one line that it does not know."""
    lines = [line for line in text.split("\n") if not line.lstrip().startswith(("#", ";"))]
    section = ""
    # A line goes on behind a backslash at its end, over comments in between.
    for line in map(str.strip, "\n".join(lines).replace("\\\n", " ").split("\n")):
        key, is_setting, value = line.partition("=")
        if line.startswith("["):
            if not line.endswith("]"):
                raise ValueError(line)
            section = line
        elif is_setting and section == SECTION and key.strip() == KEY:
            yield value.strip().lower()
