# SPDX-License-Identifier: BSD-3-Clause
"""Whether logind deletes shared memory, by files as systemd reads them: seen with systemd 262."""

from pathlib import Path

import pytest

from preswapd.host import logind
from preswapd.host.logind import removes_ipc

NO, YES = "[Login]\nRemoveIPC=no\n", "[Login]\nRemoveIPC=yes\n"
ETC, RUN = "/etc/systemd", "/run/systemd"
LOCAL, VENDOR = "/usr/local/lib/systemd", "/usr/lib/systemd"


@pytest.fixture(autouse=True)
def tree(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A host's, with nothing in it."""
    for name in ("FILES", "DROP_INS"):
        places = [f"{tmp_path}{place}" for place in getattr(logind, name)]
        monkeypatch.setattr(logind, name, places)
    return tmp_path


def lay(tree: Path, files: dict[str, str]) -> None:
    for name, text in files.items():
        path = Path(f"{tree}{name}")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


def test_default() -> None:
    assert removes_ipc()


@pytest.mark.parametrize("folder", [ETC, RUN, LOCAL, VENDOR])
def test_each_folder_is_looked_at(tree: Path, folder: str) -> None:
    lay(tree, {f"{folder}/logind.conf": NO})
    assert not removes_ipc()
    lay(tree, {f"{folder}/logind.conf.d/a.conf": YES})
    assert removes_ipc()


@pytest.mark.parametrize(("first", "second"), [(ETC, RUN), (RUN, LOCAL), (LOCAL, VENDOR)])
def test_only_the_first_main_file_is_read(tree: Path, first: str, second: str) -> None:
    lay(tree, {f"{first}/logind.conf": "", f"{second}/logind.conf": NO})
    assert removes_ipc()
    lay(tree, {f"{first}/logind.conf": NO, f"{second}/logind.conf": YES})
    assert not removes_ipc()


@pytest.mark.parametrize(("first", "second"), [(ETC, RUN), (RUN, LOCAL), (LOCAL, VENDOR)])
def test_drop_in_hides_its_namesakes(tree: Path, first: str, second: str) -> None:
    lay(tree, {f"{second}/logind.conf.d/a.conf": NO})
    assert not removes_ipc()
    lay(tree, {f"{first}/logind.conf.d/a.conf": "[Login]\nKillUserProcesses=no\n"})
    assert removes_ipc()


def test_drop_ins_are_read_by_name_behind_the_main_file(tree: Path) -> None:
    files = {f"{ETC}/logind.conf": YES, f"{VENDOR}/logind.conf.d/10.conf": YES}
    lay(tree, {**files, f"{ETC}/logind.conf.d/20.conf": NO})
    assert not removes_ipc()
    lay(tree, {f"{RUN}/logind.conf.d/15.conf": YES, f"{LOCAL}/logind.conf.d/05.conf": YES})
    assert not removes_ipc()
    lay(tree, {f"{VENDOR}/logind.conf.d/a.conf": YES})
    assert removes_ipc()


def test_empty_file_and_link_to_null_hide_a_drop_in(tree: Path) -> None:
    own = f"{ETC}/logind.conf.d/a.conf"
    lay(tree, {f"{VENDOR}/logind.conf.d/a.conf": NO, own: ""})
    assert removes_ipc()
    Path(f"{tree}{own}").unlink()
    Path(f"{tree}{own}").symlink_to("/dev/null")
    assert removes_ipc()


def test_directory_and_link_to_nothing_hide_no_drop_in(tree: Path) -> None:
    lay(tree, {f"{VENDOR}/logind.conf.d/a.conf": NO})
    own = Path(f"{tree}{ETC}/logind.conf.d/a.conf")
    own.mkdir(parents=True)
    assert not removes_ipc()
    own.rmdir()
    own.symlink_to("nothing")
    assert not removes_ipc()


def test_link_to_nothing_is_no_main_file(tree: Path) -> None:
    lay(tree, {f"{ETC}/logind.conf": "", f"{RUN}/logind.conf": NO})
    own = Path(f"{tree}{ETC}/logind.conf")
    own.unlink()
    own.symlink_to("nothing")
    assert not removes_ipc()


def test_what_is_no_drop_in(tree: Path) -> None:
    lay(tree, {f"{ETC}/logind.conf.d/{name}": NO for name in (".a.conf", "a.txt", "a.conf~")})
    assert removes_ipc()


@pytest.mark.parametrize(
    ("lines", "removes"),
    [
        ("RemoveIPC=no\nRemoveIPC=yes", True),
        ("RemoveIPC=no\nRemoveIPC=", False),
        ("RemoveIPC=no\nRemoveIPC=maybe", False),
        ("RemoveIPC = OFF", False),
        ('RemoveIPC="no"', True),
        ("RemoveIPC=no # comment", True),
        ("removeipc=no", True),
        ("RemoveIPC : no", True),
        ("nonsense\n  RemoveIPC=no", False),
        ("KillOnlyUsers=a\n RemoveIPC=no", False),
        ("KillOnlyUsers=a \\\nRemoveIPC=no", True),
        ("RemoveIPC= \\\n; comment\n no", False),
        ("# comment \\\nRemoveIPC=no", False),
        ("[Other]\nRemoveIPC=no", True),
        ("[Other]\n[Login]\nRemoveIPC=no", False),
    ],
)
def test_lines(tree: Path, lines: str, removes: bool) -> None:
    lay(tree, {f"{ETC}/logind.conf": f"[Login]\n{lines}\n"})
    assert removes_ipc() is removes


def test_outside_of_sections(tree: Path) -> None:
    lay(tree, {f"{ETC}/logind.conf": "RemoveIPC=no\n"})
    assert removes_ipc()


def test_nothing_is_read_behind_a_damaged_heading(tree: Path) -> None:
    lay(tree, {f"{ETC}/logind.conf": "[Login\n", f"{ETC}/logind.conf.d/a.conf": NO})
    assert removes_ipc()
    lay(tree, {f"{ETC}/logind.conf": f"{NO}[Login\n", f"{ETC}/logind.conf.d/a.conf": YES})
    assert not removes_ipc()
