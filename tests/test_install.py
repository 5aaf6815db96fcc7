# SPDX-License-Identifier: BSD-3-Clause
"""`make install` lays what other programs look for, under DESTDIR alone."""

import os
from pathlib import Path

from tests.running import BIN, run

ROOT = Path(__file__).parents[1]
INSTALLED = """
bin/preswapctl
bin/preswapd
lib/systemd/system/preswapd-metrics.service
lib/systemd/system/preswapd-metrics.timer
lib/systemd/system/preswapd@.service
lib/systemd/system/preswapd@.socket
lib/sysusers.d/preswapd.conf
lib/tmpfiles.d/preswapd.conf
share/bash-completion/completions/preswapctl
share/bash-completion/completions/preswapd
share/doc/preswapd/README.md
share/doc/preswapd/apparmor-libvirt-qemu
share/doc/preswapd/example.toml
share/fish/vendor_completions.d/preswapctl.fish
share/fish/vendor_completions.d/preswapd.fish
share/man/man5/preswapd.toml.5
share/man/man8/preswapctl.8
share/man/man8/preswapd.8
share/zsh/site-functions/_preswapctl
share/zsh/site-functions/_preswapd
"""


def make_install(tmp_path: Path, *variables: str, umask: str = "022") -> None:
    # What is built already is taken as it is: this test runs beside others that use it.
    places = [f"{name}={tmp_path / name.lower()}" for name in ("MAN", "COMPLETIONS")]
    made = ["make", "--directory", str(ROOT), "--assume-old=build", "install", f"BIN={BIN}"]
    command = ["/bin/sh", "-c", f'umask {umask}; exec "$@"', "sh", *made, *places, *variables]
    done = run(command, timeout=100)
    assert done.returncode == 0, done.stderr


def test_files_are_where_they_are_looked_for(tmp_path: Path) -> None:
    make_install(tmp_path, f"DESTDIR={tmp_path}/root", "PREFIX=/usr", "APP=/srv/preswapd")
    root = tmp_path / "root/usr"
    found = sorted(str(path.relative_to(root)) for path in root.rglob("*") if not path.is_dir())
    assert found == INSTALLED.split()
    assert os.listdir(tmp_path / "root") == ["usr"]
    unit = (root / "lib/systemd/system/preswapd@.service").read_text()
    assert "ExecStart=/srv/preswapd/bin/preswapd serve" in unit
    assert "/opt/" not in unit
    metrics = (root / "lib/systemd/system/preswapd-metrics.service").read_text()
    assert "ExecStart=/srv/preswapd/bin/preswapctl metrics" in metrics
    assert os.readlink(root / "bin/preswapctl") == "/srv/preswapd/bin/preswapctl"
    bash = (root / "share/bash-completion/completions/preswapctl").read_text()
    assert "_PRESWAPCTL_COMPLETE=bash_complete" in bash
    modes = {path.stat().st_mode & 0o777 for path in (root / "lib").rglob("*.*") if path.is_file()}
    assert modes == {0o644}


def test_umask_makes_nothing_unreadable(tmp_path: Path) -> None:
    """Neither what is installed nor the virtual environment that was made with the same umask."""
    app, prefix = tmp_path / "app", tmp_path / "usr"
    (app / "bin").mkdir(parents=True)
    (app / "bin/preswapd").touch()
    for path, mode in ((app, 0o700), (app / "bin", 0o700), (app / "bin/preswapd", 0o700)):
        path.chmod(mode)
    (app / "lib").touch()
    (app / "lib").chmod(0o600)
    make_install(tmp_path, f"PREFIX={prefix}", f"APP={app}", umask="077")
    executable = {app / "bin/preswapd"}
    for path in (*prefix.rglob("*"), app, *app.rglob("*")):
        if not path.is_symlink():
            wanted = 0o755 if path.is_dir() or path in executable else 0o644
            assert path.stat().st_mode & 0o777 == wanted, path
