# SPDX-License-Identifier: BSD-3-Clause
"""The Debian package, as far as it can be tested without building it: what contrib/debian says is
what the rest says, and its scripts take nothing away from a guest."""

import os
import re
import shutil
import subprocess
import tomllib
from pathlib import Path
from typing import Any

import pytest

from preswapd.host.nbdkit import OLDEST
from preswapd.host.versions import version_text
from tests.running import run

ROOT = Path(__file__).parents[1]
DEBIAN = ROOT / "contrib/debian"
DOC = "/usr/share/doc/preswapd/"
# Of build-essential, which Debian's packages need not name.
ESSENTIAL = {"gcc", "libc6-dev"}
SCRIPTS = ("postinst", "prerm", "postrm")


def field(name: str, paragraph: int) -> dict[str, str]:
    """The packages that it names, each with its version."""
    text = (DEBIAN / "control").read_text().split("\n\n")[paragraph]
    (found,) = re.findall(rf"^{name}:\n((?: .+\n?)+)", text, re.M)
    words = (re.fullmatch(r" (\S+?)(?: \((.+)\))?,", line) for line in found.splitlines())
    return {match[1]: match[2] or "" for match in words if match}


def project() -> dict[str, Any]:
    text = (ROOT / "pyproject.toml").read_text()
    return dict(tomllib.loads(text)["project"])


def test_it_is_built_with_what_make_needs() -> None:
    stage = re.search(
        r"build_packages\(\) \{\n.*?'LIST'\n(.*?)\nLIST",
        (ROOT / "tools/system-packages").read_text(),
        re.S,
    )
    assert stage
    needed = {line.split()[0] for line in stage[1].splitlines()}
    assert set(field("Build-Depends", 0)) - {"debhelper-compat"} == needed - ESSENTIAL


def test_versions_are_those_of_the_project() -> None:
    oldest = f">= {version_text(OLDEST).removesuffix('.0')}"
    depends = field("Depends", 1)
    assert depends["nbdkit"] == depends["nbdkit-plugin-python"] == oldest
    assert field("Build-Depends", 0)["python3"] == f"{project()['requires-python']}~"
    # Of the release that it was built in, and no other: debian/rules fills it in.
    assert "${preswapd:Python}" in depends
    rules = (DEBIAN / "rules").read_text()
    assert "python3 (>= 3.{minor}~), python3 (<< 3.{minor + 1}~)" in rules


def test_licences_of_what_comes_with_it_are_named() -> None:
    text = (DEBIAN / "copyright").read_text()
    names = [re.split(r"[ <>=]", line)[0] for line in project()["dependencies"]]
    assert [name for name in names if name not in text] == []
    own = (ROOT / "LICENSE").read_text().splitlines()
    assert [line for line in own[4:] if line and f" {line}\n" not in text] == []


def documents() -> set[str]:
    """What debian/rules copies under the names that it has in the checkout."""
    copied = re.search(r"\tcp --parents (.+) \$\(DOC\)\n", (DEBIAN / "rules").read_text())
    assert copied
    paths = (path for pattern in copied[1].split() for path in ROOT.glob(pattern))
    return {str(path.relative_to(ROOT)) for path in paths}


def test_what_guides_link_to_is_installed() -> None:
    """Files that are to be used; figures of benchmarks and tests are for those who have them."""
    installed = documents()
    guides = [ROOT / "systemd/README.md", *ROOT.glob("docs/*.md"), *ROOT.glob("docs/guides/*.md")]
    linked = {
        os.path.relpath(guide.parent / link, ROOT)
        for guide in guides
        for link in re.findall(r"\]\(([\w./-]+)[#)]", guide.read_text())
    }
    used = {name for name in linked if name.split("/")[0] in {"contrib", "docs", "systemd"}}
    assert len(used) > 20
    assert used - installed == set()
    # As they are: compressed, a link would not find them.
    compress = re.search(r"\tdh_compress (.+)\n", (DEBIAN / "rules").read_text())
    assert compress
    kept = re.findall(r"-X(\S+)", compress[1])
    places = {name: f"{DOC}{name}" for name in used}
    assert [name for name, path in places.items() if not any(part in path for part in kept)] == []
    manuals = [f"/usr/share/man/{path.stem}" for path in ROOT.glob("docs/man/*.in")]
    assert manuals
    assert [path for path in manuals if any(part in path for part in kept)] == []


def test_documents_are_installed_where_doc_base_looks() -> None:
    listed = re.findall(rf"{DOC}(\S+\.md)", (DEBIAN / "preswapd.doc-base").read_text())
    assert len(listed) > 3
    installed = re.findall(r"[\w/*]+\.md\b", (DEBIAN / "rules").read_text())
    assert [name for name in listed if name not in {*installed, "README.md"}] == []
    assert [name for name in listed if not list(ROOT.glob(name))] == []
    guide = re.search(rf"GUIDE={DOC}(\S+)", (DEBIAN / "preswapd.prerm").read_text())
    assert guide
    assert (ROOT / guide[1]).is_file()


SYSTEMCTL = """\
#!/bin/sh
for unit; do :; done
is_among() { case " $* " in *" $unit "*) true ;; *) false ;; esac; }
case $1 in
  list-units)
    [ "$UNITS" != "?" ] || exit 1
    for known in $UNITS; do
      name=${known%:*} state=${known#*:}
      for argument; do
        case $argument in
          --state=*) case ,${argument#*=}, in *,$state,*) ;; *) break ;; esac ;;
          # Its patterns are the shell's.
          *) case $name in $argument) echo "$name loaded $state running" ;; esac ;;
        esac
      done
    done ;;
  show) if is_among $OTHERS; then echo "$ROOT/usr/local/lib/systemd/system/$unit"; fi ;;
  is-enabled) is_among $ENABLED ;;
  is-active)
    for known in $UNITS; do
      [ "${known%:*}" != "$unit" ] || state=${known#*:}
    done
    [ "$2" = --quiet ] || echo "$state"
    [ "$state" = active ] ;;
  *)
    echo systemctl "$*" >>"$ROOT/calls"
    ! is_among $BROKEN ;;
esac
"""


class Host:
    """A host of its own in a folder, with a systemctl that knows the units that are named."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.calls = root / "calls"
        self.disks = root / "var/lib/preswapd"
        self.config = root / "etc/preswapd/vm1.toml"
        self.others = self.enabled = self.broken = ""
        for folder in ("run/systemd/system", "bin", "etc/preswapd", "var/lib/preswapd", "dev/shm"):
            (root / folder).mkdir(parents=True)

    def install_other(self, *units: str) -> None:
        """What `make install` brings, and of it these run."""
        template = self.root / "usr/local/lib/systemd/system/preswapd@.service"
        template.parent.mkdir(parents=True)
        template.touch()
        self.others = " ".join(units)

    def maintain(self, script: str, *arguments: str, units: str = "") -> tuple[int, str]:
        """`units`: NAME, which is active, or NAME:STATE; "?": systemctl cannot tell."""
        text = (DEBIAN / f"preswapd.{script}").read_text()
        # A package's scripts name a host's folders as they are.
        text = re.sub(
            r"(?<=[ =\n\"])/(?=(?:etc|var|run|dev/shm|usr/local)\b)", f"{self.root}/", text
        )
        self.command("systemctl", SYSTEMCTL)
        for name in ("systemd-sysusers", "systemd-tmpfiles"):
            self.command(name, "#!/bin/sh\n")
        states = [
            unit if ":" in unit or unit == "?" else f"{unit}:active" for unit in units.split()
        ]
        env = {
            "PATH": f"{self.root}/bin:{os.environ['PATH']}",
            "ROOT": str(self.root),
            "UNITS": " ".join(states),
            "OTHERS": self.others,
            "ENABLED": self.enabled,
            "BROKEN": self.broken,
        }
        done = run(["sh", "-c", text, script, *arguments], env=env)
        return done.returncode, done.stdout + done.stderr

    def command(self, name: str, script: str) -> None:
        path = self.root / "bin" / name
        path.write_text(script)
        path.chmod(0o755)

    def called(self) -> list[str]:
        """What was to change something."""
        return self.calls.read_text().splitlines() if self.calls.exists() else []

    def restarted(self) -> list[str]:
        return [call.split()[-1] for call in self.called() if "restart" in call]


@pytest.fixture
def host(tmp_path: Path) -> Host:
    return Host(tmp_path / "host")


@pytest.mark.parametrize("script", SCRIPTS)
def test_scripts_are_posix_shell(script: str) -> None:
    subprocess.run(["sh", "-n", DEBIAN / f"preswapd.{script}"], check=True)
    assert "#DEBHELPER#" in (DEBIAN / f"preswapd.{script}").read_text()


def test_removal_is_refused_while_a_guest_may_swap(host: Host) -> None:
    units = "preswapd@vm1.service preswapd@vm1.socket preswapd-sync@vm1.service"
    status, text = host.maintain("prerm", "remove", units=units)
    assert status == 1
    assert "  systemctl stop preswapd@vm1.service preswapd@vm1.socket \n" in text
    sync = "preswapd-sync@vm1.service"
    assert f"  systemctl stop {sync} && ! systemctl is-failed {sync} \n" in text
    assert host.called() == []


def test_removal_is_refused_where_systemctl_cannot_tell(host: Host) -> None:
    status, text = host.maintain("prerm", "remove", units="?")
    assert status == 1
    assert "systemctl does not say what runs here" in text
    # And an upgrade goes on: nobody is restarted, which is said.
    status, text = host.maintain("postinst", "configure", "1", units="?")
    assert (status, "no server was restarted" in text) == (0, True)
    assert host.called() == ["systemctl daemon-reload"]


def test_removal_of_what_serves_nobody(host: Host) -> None:
    assert host.maintain("prerm", "remove") == (0, "")
    assert host.called() == []


def test_removal_stops_what_serves_no_guest_and_says_so(host: Host) -> None:
    """And node_exporter does not tell the last figures for ever."""
    figures = host.root / "var/lib/prometheus/node-exporter/preswapd.prom"
    figures.parent.mkdir(parents=True)
    figures.write_text("preswapd_up 1\n")
    status, text = host.maintain("prerm", "remove", units="preswapd-metrics.timer")
    assert (status, text) == (0, "preswapd: preswapd-metrics.timer is stopped\n")
    assert host.called() == ["systemctl stop preswapd-metrics.timer"]
    assert not figures.exists()


def test_upgrade_stops_nothing_and_restarts_what_serves(host: Host) -> None:
    units = "preswapd@vm1.service preswapd@vm1.socket preswapd-sync@vm1.service"
    assert host.maintain("prerm", "upgrade", "2", units=units) == (0, "")
    assert host.called() == []
    assert host.maintain("postinst", "configure", "1", units=units) == (0, "")
    assert host.restarted() == ["preswapd@vm1.service"]


def test_upgrade_that_does_not_start_takes_no_other_server_down(host: Host) -> None:
    servers = [f"preswapd@vm{number}.service" for number in (1, 2, 3)]
    host.broken = servers[1]
    host.enabled = "preswapd@vm4.service"
    units = f"preswapd-governor.service {' '.join(servers)} {host.enabled}:failed"
    status, text = host.maintain("postinst", "configure", "1", units=units)
    assert (status, host.restarted()) == (0, servers[:2])
    assert f"{servers[1]} does not run" in text
    waiting = f"{servers[2]} {host.enabled} preswapd-governor.service"
    assert f"  systemctl restart {waiting}\n" in text
    assert "docs/guides/leaving.md" in text


def test_upgrade_goes_on_after_one_that_had_not_run(host: Host) -> None:
    host.broken = "preswapd@vm1.service"
    units = "preswapd@vm1.service:activating preswapd@vm2.service"
    status, text = host.maintain("postinst", "configure", "1", units=units)
    assert (status, host.restarted()) == (0, units.replace(":activating", "").split())
    assert "version before" not in text


def test_upgrade_restarts_no_failed_server_that_was_stopped_for_good(host: Host) -> None:
    host.enabled = "preswapd@vm1.service"
    failed = [f"preswapd@vm{number}.service:failed" for number in (1, 2, 3)]
    units = f"{' '.join(failed)} preswapd@vm3.socket preswapd-governor.service:failed"
    assert host.maintain("postinst", "configure", "1", units=units) == (0, "")
    assert host.restarted() == ["preswapd@vm1.service", "preswapd@vm3.service"]


def test_what_make_install_has_brought_is_left_alone(host: Host) -> None:
    """Its units hide the package's: those of its servers are its own."""
    units = "preswapd@vm1.service preswapd@vm1.socket preswapd-metrics.timer"
    host.install_other(*units.split())
    link = host.root / "etc/systemd/system/multi-user.target.wants/preswapd@vm1.service"
    link.parent.mkdir(parents=True)
    link.symlink_to("gone")
    host.config.touch()
    status, text = host.maintain("postinst", "configure", "1", units=units)
    assert (status, host.restarted(), "hide this package's" in text) == (0, [], True)
    status, text = host.maintain("prerm", "remove", units=units)
    assert (status, "what runs of it goes on" in text) == (0, True)
    assert host.called() == ["systemctl daemon-reload"]
    status, text = host.maintain("postrm", "purge")
    assert (status, link.is_symlink(), host.config.exists()) == (0, True, True)
    assert f"{host.config.parent} and {host.disks} stay" in text


def test_package_beside_make_install_still_guards_its_own(host: Host) -> None:
    """As of a unit of the package's that was copied to be changed."""
    host.install_other()
    assert host.maintain("prerm", "remove", units="preswapd@vm1.service")[0] == 1


def test_removal_is_refused_after_a_sync_that_has_failed(host: Host) -> None:
    """As long as there are pages in memory, which a reboot would lose."""
    sync = "preswapd-sync@vm1.service"
    units = f"{sync}:failed preswapd-sync@vm2.service:failed"
    memory = host.root / "dev/shm/preswapd-vm1"
    memory.mkdir()
    status, text = host.maintain("prerm", "remove", units=units)
    assert (status, "vm2" in text) == (1, False)
    assert "what is running here" not in text
    stop = f"systemctl stop {sync} && ! systemctl is-failed {sync}"
    assert f"  systemctl start {sync} && {stop} \n" in text
    assert f"systemctl reset-failed {sync}" in text
    memory.rmdir()
    assert host.maintain("prerm", "remove", units=units) == (0, "")


SIDECAR = '{"format":1,"tmem_dirty":true}'
KEY = bytes(32)


def command_of(text: str) -> str:
    (command,) = (line.strip() for line in text.splitlines() if "rm -r" in line)
    return command


def test_purge_never_deletes_a_page(host: Host) -> None:
    disk = host.disks / "vm1/swap0.img"
    memory = host.root / "dev/shm/preswapd-vm1"
    disk.parent.mkdir()
    disk.write_text("a page")
    disk.with_suffix(".json").write_text(SIDECAR)
    memory.mkdir()
    host.config.write_text('pool-size = "1G"\n')
    status, text = host.maintain("postrm", "purge")
    assert (status, disk.exists(), memory.exists(), host.config.exists()) == (0, True, True, True)
    assert f"Swap disks, and what tells of them:\n  {disk}\n" in text
    assert f"Pages in memory:\n  {memory}\n" in text
    subprocess.run(["sh", "-c", command_of(text)], check=True)
    assert host.maintain("postrm", "purge") == (0, "")
    assert not host.disks.exists()


def test_purge_prints_no_name_of_others(host: Host) -> None:
    """Anybody may make them in /dev/shm, and root is to type what is printed."""
    for name in ("preswapd-x;touch hurt", "preswapd-y *"):
        (host.root / "dev/shm" / name).mkdir()
    (host.root / "kept").touch()
    status, text = host.maintain("postrm", "purge")
    assert (status, "preswapd-x;touch hurt\n" in text) == (0, True)
    subprocess.run(["sh", "-c", command_of(text)], check=True, cwd=host.root)
    assert list((host.root / "dev/shm").iterdir()) == []
    assert ((host.root / "kept").exists(), (host.root / "hurt").exists()) == (True, False)


@pytest.mark.parametrize(
    "name",
    [
        *("vm1.raw", "the guest's own.img", "swap0.img.new", "swap0.img ", "swap0.img\n", "lock"),
        *("root.map", "root.json", "root.sums", "remote.key", "vm1.img/root.raw", "a\\cb/s.img"),
    ],
)
@pytest.mark.parametrize("swap", [False, True])
def test_purge_never_deletes_a_guests_own_disk(host: Host, name: str, swap: bool) -> None:
    """A writable image may lie among the swap disks; nor does the command that it prints."""
    folder = host.disks / "vm1"
    own = folder / name
    own.parent.mkdir(parents=True)
    for file in ("swap0.img", "swap0.json") if swap else ():
        (folder / file).write_text(SIDECAR)
    own.write_text("all that a guest has")
    # What another program has written beside it.
    own.with_suffix(".json").touch()
    host.config.touch()
    status, text = host.maintain("postrm", "purge")
    assert (status, own.exists(), host.config.exists()) == (0, True, True)
    # Of a name in two lines it is not said what it is.
    said = "Not all of it can be seen" if "\n" in name else f"a guest's own disk:\n  {folder}"
    assert said in text
    subprocess.run(["sh", "-c", command_of(text)], check=True)
    assert own.read_text() == "all that a guest has"


def test_purge_sees_pages_of_other_users_and_on_another_disk(host: Host, tmp_path: Path) -> None:
    other = host.root / "dev/shm/preswapd-1000-vm2"
    other.mkdir()
    host.config.touch()
    status, text = host.maintain("postrm", "purge")
    assert (status, host.config.exists(), str(other) in text) == (0, True, True)
    other.rmdir()
    host.disks.rmdir()
    (tmp_path / "larger/vm1").mkdir(parents=True)
    host.disks.symlink_to(tmp_path / "larger")
    disk = tmp_path / "larger/vm1/swap0.img"
    disk.touch()
    status, text = host.maintain("postrm", "purge")
    assert (status, host.config.exists(), "swap0.img" in text) == (0, True, True)
    # Not mounted.
    host.disks.unlink()
    host.disks.symlink_to(tmp_path / "away")
    status, text = host.maintain("postrm", "purge")
    assert (status, host.config.exists()) == (0, True)
    assert f"Not all of it can be seen:\n  {host.disks}\n" in text
    host.disks.unlink()
    host.disks.symlink_to(tmp_path / "larger")
    disk.unlink()
    assert host.maintain("postrm", "purge") == (0, "")
    assert not host.config.exists()


def test_purge_leaves_another_installation_alone(host: Host, tmp_path: Path) -> None:
    wants = host.root / "etc/systemd/system/multi-user.target.wants"
    wants.mkdir(parents=True)
    (wants / "preswapd@vm1.service").symlink_to(tmp_path)
    (wants / "preswapd@vm2.service").symlink_to(tmp_path / "gone")
    socket = host.root / "run/preswapd/vm1/nbd.sock"
    socket.parent.mkdir(parents=True)
    socket.touch()
    (host.root / "run/preswapd/vm2").mkdir()
    assert host.maintain("postrm", "purge") == (0, "")
    assert [path.name for path in wants.iterdir()] == ["preswapd@vm1.service"]
    assert [path.name for path in (host.root / "run/preswapd").iterdir()] == ["vm1"]


def test_purge_deletes_the_configuration_of_nobody(host: Host) -> None:
    """And what the server has made for itself; what configuration says in comments is not said."""
    host.config.write_text('pool-size = "1G"\n # state-dir = "/srv/swap"\n#writable = true\n')
    folder = host.disks / "vm1"
    folder.mkdir()
    (folder / "lock").touch()
    (folder / "remote.key").write_bytes(KEY)
    (folder / "base.sums").write_bytes(b"pssums1\n" + bytes(100))
    assert host.maintain("postrm", "remove") == (0, "")
    assert host.config.exists()
    assert host.maintain("postrm", "purge") == (0, "")
    assert not host.config.parent.exists()
    assert not host.disks.exists()


def test_purge_takes_what_it_cannot_see_for_something(host: Host) -> None:
    """As a server of files may not let root read all."""
    host.command("find", f'#!/bin/sh\n{shutil.which("find")} "$@"; exit 1\n')
    status, text = host.maintain("postrm", "purge")
    assert (status, f"Not all of it can be seen:\n  {host.disks}\n" in text) == (0, True)
    assert host.config.parent.exists()


@pytest.mark.parametrize(
    "text",
    [
        'state-dir = "/srv/swap"',
        '"shm-dir"\t= "/dev/shm/x"',
        '[image.root]\npath = "/srv/vm1.raw"\nwritable = true',
        'image.root = { path = "/srv/vm#1.raw", writable = true }',
    ],
)
@pytest.mark.parametrize("is_link", [False, True])
def test_purge_keeps_a_configuration_that_says_where_pages_are(
    host: Host, tmp_path: Path, text: str, is_link: bool
) -> None:
    if is_link:
        host.config.symlink_to(tmp_path / "vm1.toml")
    host.config.write_text(text + "\n")
    status, told = host.maintain("postrm", "purge")
    assert (status, host.config.exists()) == (0, True)
    assert str(host.config) in told


def test_purge_keeps_what_a_unit_names(host: Host) -> None:
    units = host.root / "etc/systemd/system"
    units.mkdir(parents=True)
    (units / "other.service").write_text("ExecStart=/usr/bin/other --state-dir=/srv/other\n")
    (units / "my-swap.service").write_text(
        "ExecStart=/usr/bin/preswapd serve \\\n  --shm-dir /dev/shm/x\n"
    )
    status, text = host.maintain("postrm", "purge")
    assert (status, host.config.parent.exists()) == (0, True)
    assert f"may be more:\n  {units}/my-swap.service\n" in text
    assert "other.service" not in text


def test_container_gets_the_package_of_its_release(tmp_path: Path) -> None:
    """Also where `make deb` was called for others too, whose Python is another one, and before."""
    text = (ROOT / "contrib/container/Containerfile").read_text().replace("\\\n", "")
    (script,) = re.findall(r"^RUN (.+)$", text, re.M)
    (tmp_path / "os-release").write_text('VERSION_ID="12"\n')
    for version, release in (("0.10.0", 12), ("0.9.0", 12), ("0.11.0", 13)):
        (tmp_path / f"preswapd_{version}+deb{release}_amd64.deb").touch()
    (tmp_path / "apt-get").write_text('#!/bin/sh\necho "$@"\n')
    (tmp_path / "apt-get").chmod(0o755)
    script = re.sub(r"/tmp/|/etc/|/var/lib/", f"{tmp_path}/", script)
    done = run(["sh", "-ec", script], env={"PATH": f"{tmp_path}:{os.environ['PATH']}"})
    installed = done.stdout.splitlines()[1].split()[-1]
    assert installed == f"{tmp_path}/preswapd_0.10.0+deb12_amd64.deb"
    assert not list(tmp_path.glob("*.deb"))
