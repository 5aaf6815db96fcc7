# SPDX-License-Identifier: BSD-3-Clause
"""`make install` and `make uninstall`: what they bring and take away, and that it works there."""

import compileall
import os
import shutil
import subprocess
import sys
from importlib.machinery import SourceFileLoader
from importlib.metadata import Distribution, PackageNotFoundError, distributions
from importlib.util import module_from_spec, spec_from_loader
from pathlib import Path
from types import ModuleType

import pytest

from tests.running import BIN, RunningServer, run

ROOT = Path(__file__).parents[1]
INSTALLED = """
bin/preswapctl
bin/preswapd
lib/systemd/system/preswapd-governor.service
lib/systemd/system/preswapd-metrics.service
lib/systemd/system/preswapd-metrics.timer
lib/systemd/system/preswapd-sync@.service
lib/systemd/system/preswapd@.service
lib/systemd/system/preswapd@.socket
lib/sysusers.d/preswapd.conf
lib/tmpfiles.d/preswapd.conf
share/bash-completion/completions/preswapctl
share/bash-completion/completions/preswapd
share/doc/preswapd/README.md
share/doc/preswapd/apparmor-libvirt-qemu
share/doc/preswapd/example.toml
share/doc/preswapd/governor.toml
share/doc/preswapd/images.toml
share/doc/preswapd/libvirt-hook
share/doc/preswapd/listen.conf
share/doc/preswapd/remote.conf
share/fish/vendor_completions.d/preswapctl.fish
share/fish/vendor_completions.d/preswapd.fish
share/man/man5/preswapd-governor.toml.5
share/man/man5/preswapd.toml.5
share/man/man8/preswapctl.8
share/man/man8/preswapd.8
share/zsh/site-functions/_preswapctl
share/zsh/site-functions/_preswapd
"""


def make(*arguments: str) -> subprocess.CompletedProcess[str]:
    # What is built already is taken as it is: this test runs beside others that use it.
    known = [f"--assume-old={name}" for name in ("build", "built")]
    return run(["make", f"--directory={ROOT}", *known, f"BIN={BIN}", *arguments], timeout=100)


def files(folder: Path) -> list[str]:
    found = (path for path in folder.rglob("*") if path.is_symlink() or path.is_file())
    return sorted(str(path.relative_to(folder)) for path in found)


@pytest.fixture(scope="module")
def packaged(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The DESTDIR of a packager."""
    root = tmp_path_factory.mktemp("packaged")
    # Whatever the umask, everybody must be able to read it.
    before = os.umask(0o077)
    done = make("install", *packager(root))
    os.umask(before)
    assert done.returncode == 0, done.stderr
    return root


def packager(root: Path) -> list[str]:
    return [f"DESTDIR={root}", "PREFIX=/usr", "APP=/srv/preswapd"]


def test_files_are_where_they_are_looked_for(packaged: Path) -> None:
    usr = packaged / "usr"
    assert files(usr) == INSTALLED.split()
    assert sorted(os.listdir(packaged)) == ["srv", "usr"]
    unit = (usr / "lib/systemd/system/preswapd@.service").read_text()
    assert "ExecStart=/srv/preswapd/bin/preswapd serve" in unit
    assert "/opt/" not in unit
    sync = (usr / "lib/systemd/system/preswapd-sync@.service").read_text()
    assert "/srv/preswapd/bin/preswapctl --runtime-dir" in sync
    assert "/srv/preswapd/bin/preswapd serve --system --config" in sync
    assert "/opt/" not in sync
    metrics = (usr / "lib/systemd/system/preswapd-metrics.service").read_text()
    assert "ExecStart=/srv/preswapd/bin/preswapctl metrics" in metrics
    assert os.readlink(usr / "bin/preswapctl") == "/srv/preswapd/bin/preswapctl"
    bash = (usr / "share/bash-completion/completions/preswapctl").read_text()
    assert "_PRESWAPCTL_COMPLETE=bash_complete" in bash


def test_everybody_can_read_it(packaged: Path) -> None:
    found = [path for path in packaged.rglob("*") if not path.is_symlink()]
    modes = {path.stat().st_mode & 0o777 for path in found if path.is_dir()}
    assert modes == {0o755}
    commands = {packaged / "srv/preswapd/bin" / name for name in ("preswapd", "preswapctl")}
    assert {path.stat().st_mode & 0o777 for path in commands} == {0o755}
    assert all(path.stat().st_mode & 0o444 == 0o444 for path in found if path.is_file())
    # Lintian takes one that can be run for a script, and misses its first line.
    modules = [path for path in found if path.suffix == ".py"]
    assert {path.stat().st_mode & 0o111 for path in modules} == {0}


def test_application_knows_only_where_it_will_be(packaged: Path) -> None:
    """Neither the checkout, which may go, nor the packager's folder is named in it."""
    app = packaged / "srv/preswapd"
    script = (app / "bin/preswapctl").read_text()
    assert 'exec /srv/preswapd/bin/python3 "$0"' in script
    texts = [path for path in app.rglob("*") if path.is_file() and path.suffix != ".so"]
    # What is in it: a checkout may lie in a place as common as /src.
    parts = ("preswapd", "nbd_plugin", ".venv")
    for name in (str(packaged), *(f"{ROOT}/{part}" for part in parts)):
        assert not [path for path in texts if name.encode() in path.read_bytes()]


def test_it_stays_with_its_python(packaged: Path) -> None:
    """After an upgrade of the distribution `python3` is another one, which finds no package."""
    python = packaged / "srv/preswapd/bin/python3"
    own = "python{}.{}".format(*sys.version_info)
    assert Path(os.readlink(python)).name == own
    done = run([str(python), "-Pc", "import preswapd; print(preswapd.__file__)"])
    assert done.stdout == f"{packaged}/srv/preswapd/lib/{own}/site-packages/preswapd/__init__.py\n"


def test_commands_say_that_their_python_is_gone(tmp_path: Path) -> None:
    """In one line, and with the status after which systemd does not try again."""
    place = [f"PREFIX={tmp_path}/usr", f"APP={tmp_path}/opt/preswapd", "DESTDIR="]
    assert make("install", *place).returncode == 0
    python = tmp_path / "opt/preswapd/bin/python3"
    python.unlink()
    python.symlink_to("/usr/bin/python3.0")
    for name in ("preswapd", "preswapctl"):
        done = run([str(tmp_path / "usr/bin" / name), "--version"])
        version = "{}.{}".format(*sys.version_info)
        assert done.stderr == (
            f"{name}: made for Python {version}, which is gone;"
            " install preswapd again, for the Python that is here now\n"
        )
        assert done.returncode == 2
    unit = (tmp_path / "usr/lib/systemd/system/preswapd@.service").read_text()
    assert "RestartPreventExitStatus=2\n" in unit


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can build in a checkout of another user")
def test_root_builds_nothing_for_others(tmp_path: Path) -> None:
    checkout = tmp_path / "checkout"
    left_out = shutil.ignore_patterns(".git", ".venv", "build", "__pycache__", ".*_cache")
    shutil.copytree(ROOT, checkout, ignore=left_out)
    before = files(checkout)
    os.chown(checkout, 65534, 65534)
    place = [f"DESTDIR={tmp_path}/root", "SYSTEM_PACKAGES=true"]
    done = run(["make", f"--directory={checkout}", "install", *place])
    assert done.returncode
    assert "first run make without sudo" in done.stderr
    assert (files(checkout), (tmp_path / "root").exists()) == (before, False)


def test_uninstall_takes_away_what_install_brought(tmp_path: Path) -> None:
    assert make("install", *packager(tmp_path)).returncode == 0
    others = tmp_path / "usr/bin/other", tmp_path / "srv/other"
    for other in others:
        other.write_text("somebody else's")
    done = make("uninstall", *packager(tmp_path))
    assert done.returncode == 0, done.stderr
    assert files(tmp_path) == ["srv/other", "usr/bin/other"]
    assert make("uninstall", *packager(tmp_path)).returncode == 0


def test_uninstall_is_refused_while_a_unit_is_enabled(tmp_path: Path) -> None:
    wants = tmp_path / "etc/systemd/system/multi-user.target.wants"
    wants.mkdir(parents=True)
    (wants / "preswapd@vm1.service").symlink_to("/usr/lib/systemd/system/preswapd@.service")
    command = tmp_path / "usr/bin/preswapctl"
    command.parent.mkdir(parents=True)
    command.write_text("")
    done = make("uninstall", *packager(tmp_path))
    assert done.returncode
    assert "systemctl disable --now preswapd@vm1.service" in done.stderr
    assert command.exists()


@pytest.mark.parametrize(
    ("systemctl", "told"),
    [
        ("echo preswapd-sync@vm1.service loaded active exited", "stop preswapd-sync@vm1.service"),
        ("exit 1", "systemctl does not say what runs here"),
    ],
)
def test_uninstall_is_refused_while_a_unit_runs(tmp_path: Path, systemctl: str, told: str) -> None:
    """Also one that nobody has enabled."""
    command = tmp_path / "usr/bin/preswapctl"
    command.parent.mkdir(parents=True)
    command.write_text("")
    script = tmp_path / "bin/systemctl"
    script.parent.mkdir()
    script.write_text(f"#!/bin/sh\n{systemctl}\n")
    script.chmod(0o755)
    place = [f"PREFIX={tmp_path}/usr", f"APP={tmp_path}/app", "DESTDIR=", f"BOOTED={tmp_path}"]
    env = os.environ | {"PATH": f"{tmp_path}/bin:{os.environ['PATH']}"}
    done = run(["make", f"--directory={ROOT}", "uninstall", *place], env=env)
    assert done.returncode
    assert told in done.stderr
    assert command.exists()


def test_install_has_systemd_read_the_units(tmp_path: Path) -> None:
    script = tmp_path / "bin/systemctl"
    script.parent.mkdir()
    script.write_text(f'#!/bin/sh\necho "$@" >{tmp_path}/called\n')
    script.chmod(0o755)
    place = [f"PREFIX={tmp_path}/usr", f"APP={tmp_path}/app", "DESTDIR=", f"BOOTED={tmp_path}"]
    own = [f"PATH={script.parent}:{os.environ['PATH']}"]
    assert make("install", *place, *own).returncode == 0
    assert (tmp_path / "called").read_text() == "--no-ask-password daemon-reload\n"


def test_folder_that_is_none_of_ours_is_left_alone(tmp_path: Path) -> None:
    app = tmp_path / "srv/preswapd"
    app.mkdir(parents=True)
    (app / "letters").write_text("to Milena")
    done = make("install", *packager(tmp_path))
    assert done.returncode
    assert f"{app} is there and is not a virtual environment" in done.stderr
    assert make("uninstall", *packager(tmp_path)).returncode == 0
    assert files(tmp_path) == ["srv/preswapd/letters"]


def test_installed_commands_serve_and_are_replaced_meanwhile(tmp_path: Path) -> None:
    """As on a host, but that /usr/local and /opt are elsewhere."""
    place = [f"PREFIX={tmp_path}/usr", f"APP={tmp_path}/opt/preswapd", "DESTDIR="]
    installed = tmp_path / "usr/bin"
    assert make("install", *place).returncode == 0
    with RunningServer(tmp_path, start=False) as server:
        server.launch([str(installed / "preswapd"), "serve", *server.arguments()])
        command = [str(installed / "preswapctl"), f"--runtime-dir={server.runtime_dir}"]
        maps = Path(f"/proc/{server.pid}/maps").read_text()
        assert f"{tmp_path}/opt/preswapd/lib/" in maps
        assert str(ROOT) not in maps
        assert make("install", *place).returncode == 0
        assert run([*command, "shrink", "0"]).returncode == 0
        assert "g1" in run([*command, "list"]).stdout
    assert sorted(os.listdir(tmp_path / "opt")) == ["preswapd"]


# --- what may come between ---


@pytest.fixture
def install_app() -> ModuleType:
    loader = SourceFileLoader("install_app", str(ROOT / "tools/install-app"))
    spec = spec_from_loader("install_app", loader)
    assert spec is not None
    module = module_from_spec(spec)
    loader.exec_module(module)
    return module


def trees(tmp_path: Path) -> tuple[Path, Path]:
    new, folder = tmp_path / "app.new", tmp_path / "app"
    for each in (new, folder):
        each.mkdir()
        (each / "which").write_text(each.name)
    return new, folder


@pytest.mark.parametrize("at_once", [True, False])
def test_one_program_takes_the_place_of_the_other(
    install_app: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, at_once: bool
) -> None:
    new, folder = trees(tmp_path)
    if not at_once:
        monkeypatch.setattr(install_app, "exchange_names", lambda one, other: False)
    install_app.exchange(new, folder)
    assert (folder / "which").read_text() == "app.new"
    assert list(tmp_path.iterdir()) == [folder]


def test_names_are_exchanged_at_once(install_app: ModuleType, tmp_path: Path) -> None:
    new, folder = trees(tmp_path)
    assert install_app.exchange_names(new, folder)
    assert ((new / "which").read_text(), (folder / "which").read_text()) == ("app", "app.new")
    assert not install_app.exchange_names(new, tmp_path / "nothing")


def test_killed_between_two_names(install_app: ModuleType, tmp_path: Path) -> None:
    new, folder = trees(tmp_path)
    folder.rename(tmp_path / "app.old")
    install_app.put_back(folder)
    assert (folder / "which").read_text() == "app"
    install_app.put_back(folder)
    assert set(tmp_path.iterdir()) == {folder, new}


def test_what_is_the_distributions_own_is_not_copied(
    install_app: ModuleType, tmp_path: Path
) -> None:
    (tmp_path / "click-8.dist-info").mkdir()
    (tmp_path / "click-8.dist-info/METADATA").write_text("Name: click\nVersion: 8\n")
    (foreign,) = distributions(path=[str(tmp_path)])
    with pytest.raises(SystemExit, match=f"click is in {tmp_path} and not in {sys.prefix}"):
        install_app.check_own([foreign])


def test_what_other_systems_need_is_not_looked_for(
    install_app: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The distribution may have it, and it would be refused."""
    for name, needs in {
        "preswapd": ["a", "b; sys_platform == 'win32'", "c; extra == 'remote'", "e; extra == 'x'"],
        "a": ["d; python_version < '3'", "c; extra == 'all'"],
        "c": [],
    }.items():
        (tmp_path / f"{name}-1.dist-info").mkdir()
        lines = "".join(f"Requires-Dist: {line}\n" for line in needs)
        (tmp_path / f"{name}-1.dist-info/METADATA").write_text(f"Name: {name}\nVersion: 1\n{lines}")

    def find(name: str) -> Distribution:
        return next(iter(distributions(name=name, path=[str(tmp_path)])))

    monkeypatch.setattr(install_app, "distribution", find)
    assert list(install_app.needed_by("preswapd", {})) == ["a", "c"]


def test_what_is_needed_and_missing_is_named(
    install_app: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = install_app.distribution

    def find(name: str) -> Distribution:
        if name == "rich":
            raise PackageNotFoundError(name)
        found: Distribution = real(name)
        return found

    monkeypatch.setattr(install_app, "distribution", find)
    with pytest.raises(SystemExit, match="rich is missing: make clean && make"):
        install_app.needed_by("preswapd", {})


def test_file_that_a_full_disk_has_cut_short_is_not_installed(
    install_app: ModuleType, tmp_path: Path
) -> None:
    (tmp_path / "module.py").write_text("x = [1, 2, 3]\n")
    assert compileall.compile_dir(tmp_path, quiet=1)
    install_app.check_compiled(tmp_path)
    (compiled,) = tmp_path.rglob("*.pyc")
    compiled.write_bytes(compiled.read_bytes()[:-20])
    with pytest.raises(SystemExit, match="was cut short: is the disk full"):
        install_app.check_compiled(tmp_path)
