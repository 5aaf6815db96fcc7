# SPDX-License-Identifier: BSD-3-Clause
"""The configuration: what is taken, what is refused and with which words."""

import errno
import os
import re
import tomllib
from ast import literal_eval
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

import click
import pytest
from click.testing import CliRunner, Result
from hypothesis import given
from hypothesis import strategies as st

from preswapd import paths
from preswapd.api.kinds import AUTO, LISTEN, LONGEST_AGE, MOST_THREADS, OFF, SMALLEST_POOL
from preswapd.api.settings import NO_LIMIT, POLICY
from preswapd.codecs import COMPRESS
from preswapd.errors import RefusedError, UsageError
from preswapd.host.meminfo import SMALLEST_RESERVE
from preswapd.host.nbdkit import THREADS
from preswapd.paths import InstancePaths
from preswapd.preswap.settings import MOST_DEVICES, DeviceSpec, Settings
from preswapd.remote.settings import StoreSettings
from preswapd.server.config.files import (
    DEVICE_KEYS,
    DEVICE_TABLE,
    IMAGE_KEYS,
    IMAGE_TABLE,
    INSTANCE_KEYS,
    Keys,
)
from preswapd.server.config.merged import Config, load
from preswapd.server.config.options import parse_device, setting_options
from preswapd.server.config.reach import TlsKeys
from preswapd.server.config.shown import as_toml
from tests.running import as_nobody_special

MIB = 1 << 20


def load_text(tmp_path: Path, text: str, **options: object) -> Config:
    path = tmp_path / "vm1.toml"
    path.write_text(text)
    return load(path, **options)  # type: ignore[arg-type]


def refusal(tmp_path: Path, text: str, **options: object) -> str:
    with pytest.raises(UsageError) as refused:
        load_text(tmp_path, text, **options)
    return str(refused.value).removeprefix(f"{tmp_path}/")


# --- what is taken ---


def test_every_key(tmp_path: Path) -> None:
    loaded = load_text(
        tmp_path,
        """
        instance = "vm1"
        runtime-dir = "/r"
        shm-dir = "/dev/shm/x"
        state-dir = "/s"
        pool-size = "32M"
        host-reserve = 1048576
        compress = "zstd"
        threads = 4
        listen = "0.0.0.0:10809"
        [tls]
        mode = "x509"
        certificates = "/etc/preswapd/tls"
        [remote]
        url = "rediss://swap@10.0.0.1:7000,[fd00::1]:7001,node3"
        password-file = "/etc/preswapd/password"
        key-file = "/etc/preswapd/key"
        image-key-file = "/etc/preswapd/images.key"
        ca = "/etc/preswapd/ca.pem"
        cert = "/etc/preswapd/cert.pem"
        key = "/etc/preswapd/key.pem"
        timeout = "2.5ms"
        max = "8G"
        ttl = "2h"
        [writeback]
        room = "7.5%"
        idle = "auto"
        rate = "off"
        [recompress]
        after = "2h"
        codec = "lz4"
        [device.g1]
        size = "64M"
        [device.g2]
        size = 65536
        compress = "none"
        quota = "32K"
        [device.g3]
        size = 65536
        quota = 3
        [device.g4]
        size = 65536
        quota = "unlimited"
        """,
    )
    assert loaded == Config(
        Settings(
            instance="vm1",
            paths=InstancePaths(Path("/r"), Path("/dev/shm/x"), Path("/s")),
            pool_size=32 * MIB,
            devices=(
                DeviceSpec("g1", 64 * MIB),
                DeviceSpec("g2", 65536, "none", 8),
                DeviceSpec("g3", 65536, None, 3),
                DeviceSpec("g4", 65536, None, NO_LIMIT),
            ),
            compress="zstd",
            host_reserve=MIB,
            writeback_room=0.075,
            writeback_idle=AUTO,
            writeback_rate=OFF,
            recompress_after=7200,
            recompress_codec="lz4",
        ),
        threads=4,
        listen="0.0.0.0:10809",
        tls_mode="x509",
        tls_certificates=Path("/etc/preswapd/tls"),
        remote_url="rediss://swap@10.0.0.1:7000,[fd00::1]:7001,node3",
        remote_password_file=Path("/etc/preswapd/password"),
        remote_key_file=Path("/etc/preswapd/key"),
        remote_image_key_file=Path("/etc/preswapd/images.key"),
        remote_ca=Path("/etc/preswapd/ca.pem"),
        remote_cert=Path("/etc/preswapd/cert.pem"),
        remote_key=Path("/etc/preswapd/key.pem"),
        remote_timeout=2.5,
        remote_max=8 << 30,
        remote_ttl=7200,
    )
    assert loaded.tls == TlsKeys("x509", Path("/etc/preswapd/tls"))


def test_options_win_over_the_file(tmp_path: Path) -> None:
    loaded = load_text(tmp_path, 'pool-size = "32M"\nthreads = 4', pool_size=64 * MIB)
    assert (loaded.settings.pool_size, loaded.threads) == (64 * MIB, 4)


def test_option_against_the_file_is_told(tmp_path: Path) -> None:
    """Also which of them counts; what both say alike is no conflict."""
    text = 'pool-size = "32M"\nthreads = 4\nstate-dir = "/srv/vm1"\nruntime-dir = "/r"'
    loaded = load_text(
        tmp_path, text, threads=5, pool_size=32 * MIB, state_dir=Path("/s"), runtime_dir=Path("/r")
    )
    assert loaded.settings.paths.state_dir == Path("/s")
    assert list(loaded.conflicts) == [
        f"state-dir is /s, as the option says: /srv/vm1 in {tmp_path}/vm1.toml:3 does not count;"
        " say it in one place only",
        f"threads is 5, as the option says: 4 in {tmp_path}/vm1.toml:2 does not count; say it in"
        " one place only",
    ]
    assert f'state-dir = "/s"  # --state-dir, over {tmp_path}/vm1.toml:3' in as_toml(loaded)


def test_system_directories_for_another_user(monkeypatch: pytest.MonkeyPatch) -> None:
    """As the unit has them; root sees the same without the option, and so with --show-config."""
    monkeypatch.setattr(paths, "is_root", lambda: False)
    monkeypatch.delenv("HOME")
    by_unit = load(instance="vm1", pool_size=32 * MIB, system=True)
    monkeypatch.setattr(paths, "is_root", lambda: True)
    by_root = load(instance="vm1", pool_size=32 * MIB)
    assert (
        by_unit.settings.paths
        == by_root.settings.paths
        == InstancePaths(
            Path("/run/preswapd/vm1"), Path("/dev/shm/preswapd-vm1"), Path("/var/lib/preswapd/vm1")
        )
    )


def test_devices_of_both(tmp_path: Path) -> None:
    text = 'pool-size = "32M"\n[device.g1]\nsize = "64M"'
    loaded = load_text(tmp_path, text, devices=(DeviceSpec("g2", MIB),))
    assert [spec.name for spec in loaded.settings.devices] == ["g1", "g2"]


def test_no_file_is_needed() -> None:
    loaded = load(instance="no-such-instance", pool_size=32 * MIB)
    assert loaded.settings.compress == "lz4"
    assert loaded.settings.paths.runtime_dir.name == "no-such-instance"


# --- drop-ins ---


def drop_in(tmp_path: Path, name: str, text: str) -> Path:
    path = tmp_path / "vm1.toml.d" / name
    path.parent.mkdir(exist_ok=True)
    path.write_text(text)
    return path


def test_later_drop_in_wins_key_by_key(tmp_path: Path) -> None:
    drop_in(tmp_path, "20-zstd.toml", 'compress = "zstd"\ndevice.g1.compress = "none"')
    drop_in(tmp_path, "10-small.toml", 'compress = "none"\npool-size = "8M"')
    drop_in(tmp_path, "30-more.toml", '[device.g2]\nsize = "1M"')
    drop_in(tmp_path, "40-editor.toml~", "nonsense = 1")
    drop_in(tmp_path, ".50-hidden.toml", "nonsense = 1")
    text = 'pool-size = "32M"\nthreads = 4\n[device.g1]\nsize = "64M"'
    loaded = load_text(tmp_path, text)
    settings = loaded.settings
    assert (settings.pool_size, settings.compress, loaded.threads) == (8 * MIB, "zstd", 4)
    assert settings.devices == (DeviceSpec("g1", 64 * MIB, "none"), DeviceSpec("g2", MIB))


def test_drop_ins_without_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(paths, "CONFIG_ROOT", tmp_path)
    drop_in(tmp_path, "pool.toml", 'pool-size = "8M"')
    assert load(instance="vm1").settings.pool_size == 8 * MIB


def test_drop_in_is_refused_with_its_own_line(tmp_path: Path) -> None:
    drop_in(tmp_path, "a.toml", "\nnonsense = 1")
    text = refusal(tmp_path, 'pool-size = "32M"')
    assert text.startswith("vm1.toml.d/a.toml:2: unknown key 'nonsense'")


def test_device_that_no_file_gives_a_size(tmp_path: Path) -> None:
    drop_in(tmp_path, "a.toml", '\n[device.g1]\ncompress = "lz4"')
    text = refusal(tmp_path, 'pool-size = "32M"')
    assert text == "vm1.toml.d/a.toml:2: size is missing"


@pytest.mark.parametrize("name", ["n" * 300, "link"])
def test_file_that_nobody_can_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """It is not named, and not taken for one that is not there: its drop-ins alone would count."""
    place = tmp_path / name
    (tmp_path / "link").symlink_to("missing")
    monkeypatch.setattr("preswapd.server.config.merged.config_file", lambda instance: place)
    with pytest.raises(UsageError, match=f"^{place}: "):
        load(pool_size=SMALLEST_POOL)


def test_unreadable_file_is_no_mistake_of_usage() -> None:
    """Under systemd such a start is tried again, and ends by itself once it can be read."""
    with TemporaryDirectory(prefix="preswapd-test-") as folder:
        path = Path(folder) / "vm1.toml"
        path.parent.chmod(0o755)
        path.touch(mode=0o000)
        refusal = f"{path}: Permission denied: let user"
        with as_nobody_special(), pytest.raises(RefusedError, match=refusal):
            load(path)


@pytest.mark.parametrize("call", ["read_text", "lstat"])
@pytest.mark.parametrize("number", [errno.EACCES, errno.EPERM, errno.EIO, errno.EMFILE])
def test_file_that_cannot_be_read_now(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str, number: int
) -> None:
    path = tmp_path / "vm1.toml"
    path.write_text('pool-size = "32M"')

    def fail(*_: object, **__: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(paths, "CONFIG_ROOT", tmp_path)
    monkeypatch.setattr(Path, call, fail)
    with pytest.raises(RefusedError, match=f"{path}: {os.strerror(number)}") as refused:
        load(instance="vm1")
    assert ("chmod a+rX" in str(refused.value)) == (number in {errno.EACCES, errno.EPERM})


def test_byte_order_mark(tmp_path: Path) -> None:
    drop_in(tmp_path, "a.toml", '\ufeffcompress = "zstd"\r\nthreads = 3\r\n')
    loaded = load_text(tmp_path, '\ufeffpool-size = "32M"\n')
    assert (loaded.settings.pool_size, loaded.settings.compress) == (32 * MIB, "zstd")
    assert "threads = 3  # " in as_toml(loaded)
    assert "a.toml:2" in as_toml(loaded)


def test_other_encoding_says_which_one_will_do(tmp_path: Path) -> None:
    path = tmp_path / "vm1.toml"
    path.write_text('pool-size = "32M"', encoding="utf-16")
    with pytest.raises(UsageError, match="is not UTF-8 text: save it as UTF-8"):
        load(path)


def test_drop_in_folder_that_is_none(tmp_path: Path) -> None:
    (tmp_path / "vm1.toml.d").write_text("")
    assert "Not a directory" in refusal(tmp_path, 'pool-size = "32M"')


# --- what is refused ---


@pytest.mark.parametrize(
    ("line", "complaint"),
    [
        ("pool_size = 1", "unknown key 'pool_size': the choices are instance,"),
        ('pool-size = "1M"', "pool-size: a pool must be at least 4M"),
        ("pool-size = true", "pool-size: a size is expected"),
        ("pool-size = 3.5", "pool-size: a size is expected"),
        ('pool-size = "12X"', "pool-size: '12X' is not a size"),
        ('compress = "gzip"', "compress: 'gzip' is not a codec: the choices are lz4, zstd, none"),
        ("threads = 0", "threads: 0 is out of range: from 1 to 256"),
        ('threads = "4"', "threads: a number is expected"),
        ('listen = "0.0.0.0:10809"', "listen: '0.0.0.0:10809' can be reached from other hosts"),
        ('listen = "[::]:10809"', "can be reached from other hosts"),
        ('listen = "127.0.0.1"', "is not ADDR:PORT"),
        ('listen = "127.0.0.1:99999"', "99999 is not a port"),
        ('listen = "example.org:1"', "is not ADDR:PORT"),
        ('listen = "127.0.0.1:1_0"', "is not ADDR:PORT"),
        ('tls.mode = "ssl"', "mode: 'ssl' is no kind of keys: the choices are x509, psk"),
        ('tls.mode = "x509"', "the mode x509 needs certificates in [tls], or --tls-certificates"),
        ('tls.mode = "psk"', "the mode psk needs psk-file in [tls], or --tls-psk-file"),
        (
            'tls.certificates = "/k"',
            'without a mode certificates does nothing: say mode = "x509" in [tls]',
        ),
        ('tls.psk-file = "/k"', 'without a mode psk-file does nothing: say mode = "psk" in [tls]'),
        ('tls = { mode = "psk", psk-file = "k" }', "psk-file: 'k' is not an absolute path"),
        ('remote.url = "http://h"', "url: it is not the URL of a store, like redis://10.0.0.1"),
        ('remote.url = "redis://h/x"', "url: it is not the URL of a store"),
        ('remote.url = "redis://"', "url: '' is not HOST or HOST:PORT, like 10.0.0.1:6379"),
        ('remote.url = "redis://a,b c"', "url: 'b c' is not HOST or HOST:PORT"),
        ('remote.url = "redis://a:0"', "url: 'a:0' is not HOST or HOST:PORT"),
        ('remote.url = "redis://a:65536"', "url: 'a:65536' is not HOST or HOST:PORT"),
        ('remote.url = "redis://h,[10.0.0.1]:1"', "'[10.0.0.1]:1' has no IPv6 address in its"),
        ('remote.url = "redis://:s3cret@h"', "write it into a file that the server alone can read"),
        ('remote.url = "redis://me:s3cret@h"', "and name that with password-file"),
        ('remote.ttl = "1h"', "remote-ttl: without a url it does nothing: say url in [remote]"),
        ('remote.key-file = "/k"', "remote-key-file: without a url it does nothing"),
        ('remote = { url = "redis://h", ca = "/c" }', "remote-ca: it is for TLS, and the url does"),
        ('remote = { url = "rediss://h", cert = "/c" }', "remote-cert: it needs key in [remote]"),
        ('remote = { url = "rediss://h", key = "/c" }', "or --remote-cert"),
        ('remote = { url = "redis://h", timeout = 5 }', 'a short time is expected, like "5ms"'),
        ('remote = { url = "redis://h", timeout = "5" }', "write it like 5ms or 500us"),
        ('remote = { url = "redis://h", timeout = "2s" }', "2000ms is out of range: from 0.1ms to"),
        ('remote = { url = "redis://h", ttl = "31d" }', "31d is out of range: from 1s to 30d"),
        ('runtime-dir = "run"', "runtime-dir: 'run' is not an absolute path"),
        ('runtime-dir = "/a\\u0000"', "is not an absolute path"),
        ('instance = "../x"', "instance: '../x' is not an instance name"),
        ("discard-state = true", "unknown key 'discard-state'"),
        ("device = 1", "devices are written as tables"),
        ('device."a/b" = {}', "'a/b' is not a device name"),
        ("device.g1 = 1", "a device is written as a table"),
        ("device.g1 = {}", "size is missing"),
        ('device.g1.size = "1K"', "size: a device must be at least 64K"),
        ("device.g1.size = 65537", "size: a device's size must be a multiple of 4096"),
        ('device.g1 = { size = "1M", codec = "lz4" }', "unknown key 'codec': the choices are"),
    ],
)
def test_refused_with_its_line(tmp_path: Path, line: str, complaint: str) -> None:
    text = refusal(tmp_path, f"# first\n\n{line}\n", pool_size=32 * MIB)
    assert text.startswith("vm1.toml:3: ")
    assert complaint in text


def test_not_toml(tmp_path: Path) -> None:
    assert "line 2" in refusal(tmp_path, "threads = 1\npool-size\n")


@pytest.mark.parametrize("value", ["[" * 5000, "1" * 5000])
def test_too_much_for_the_parser(tmp_path: Path, value: str) -> None:
    assert refusal(tmp_path, f"threads = {value}").startswith("vm1.toml: ")


def test_missing_file(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="No such file"):
        load(config=tmp_path / "none.toml")


def test_secret_in_a_url_is_not_repeated(tmp_path: Path) -> None:
    said = refusal(tmp_path, '[remote]\nurl = "redis://me:s3cret@h"', pool_size=32 * MIB)
    assert "s3cret" not in said


def test_root_is_no_file() -> None:
    with pytest.raises(UsageError, match=r"^/: Is a directory"):
        load(config=Path("/"))


def test_pool_size_is_required(tmp_path: Path) -> None:
    assert "--pool-size" in refusal(tmp_path, "threads = 1")


def test_device_with_two_sizes(tmp_path: Path) -> None:
    text = 'pool-size = "32M"\n[device.g1]\nsize = "64M"'
    assert "64M and 1M" in refusal(tmp_path, text, devices=(DeviceSpec("g1", MIB),))


def test_another_instances_file(tmp_path: Path) -> None:
    text = refusal(tmp_path, 'instance = "vm2"\npool-size = "4M"', instance="vm1")
    assert "--instance is vm1" in text


def test_one_directory_for_two_purposes(tmp_path: Path) -> None:
    text = refusal(tmp_path, 'state-dir = "/a"\nruntime-dir = "/a"', pool_size=32 * MIB)
    assert "must be three different directories" in text


@pytest.mark.parametrize("text", ["g1", "g1=", "=1M", "g1=1X", "a/b=1M"])
def test_bad_device_option(text: str) -> None:
    with pytest.raises((ValueError, UsageError)):
        parse_device(text)


@pytest.mark.parametrize("text", ["127.0.0.1:1", "127.9.9.9:80", "[::1]:10809", "localhost:10809"])
def test_loopback_addresses(text: str) -> None:
    assert LISTEN.parse(text) == text


def test_other_addresses_need_tls() -> None:
    with pytest.raises(UsageError, match="can be reached from other hosts, which needs TLS"):
        load(pool_size=32 * MIB, listen="[::]:10809")
    keys = Path("keys.psk")
    loaded = load(pool_size=32 * MIB, listen="[::]:10809", tls_mode="psk", tls_psk_file=keys)
    assert loaded.tls == TlsKeys("psk", keys.absolute())
    assert load(pool_size=32 * MIB, listen="[::1]:10809").tls is None


def test_mode_says_which_keys_count(tmp_path: Path) -> None:
    drop_in(tmp_path, "a.toml", '[tls]\nmode = "psk"\npsk-file = "/k"')
    text = 'pool-size = "32M"\n[tls]\nmode = "x509"\ncertificates = "/c"\n'
    assert load_text(tmp_path, text).tls == TlsKeys("psk", Path("/k"))


def test_place_of_what_does_not_fit(tmp_path: Path) -> None:
    drop_in(tmp_path, "a.toml", '[tls]\nmode = "x509"')
    said = refusal(tmp_path, 'pool-size = "32M"\n[tls]\nmode = "psk"\npsk-file = "/k"\n')
    assert said.startswith("vm1.toml.d/a.toml:2: the mode x509 needs certificates in [tls]")
    (tmp_path / "vm1.toml.d/a.toml").unlink()
    said = refusal(tmp_path, 'pool-size = "32M"\n[tls]\npsk-file = "/k"\n')
    assert said.startswith("vm1.toml:3: without a mode psk-file does nothing")


def test_store_by_its_url_alone() -> None:
    loaded = load(instance="vm1", pool_size=32 * MIB, remote_url="redis://h", system=True)
    key_file = Path("/var/lib/preswapd/vm1/remote.key")
    assert loaded.store == StoreSettings("redis://h", key_file)
    shown = as_toml(loaded)
    assert '[remote]\nurl = "redis://h"  # --remote-url\n' in shown
    assert f'key-file = "{key_file}"  # default\n' in shown
    assert 'timeout = "5ms"  # default\n' in shown


def test_store_at_a_unix_socket(tmp_path: Path) -> None:
    url = "unix:///run/valkey/valkey.sock"
    loaded = load_text(tmp_path, f'pool-size = "32M"\nremote.url = "{url}"')
    assert loaded.remote_url == url
    assert "not the URL of a store" in refusal(tmp_path, 'remote.url = "unix://x"', pool_size=MIB)


def test_without_a_store_nothing_is_said_of_one() -> None:
    loaded = load(pool_size=32 * MIB)
    assert loaded.store is None
    assert "remote" not in as_toml(loaded)


def test_place_of_a_setting_without_a_store(tmp_path: Path) -> None:
    drop_in(tmp_path, "a.toml", '[remote]\nmax = "1G"')
    said = refusal(tmp_path, 'pool-size = "32M"\n')
    assert said.startswith("vm1.toml.d/a.toml:2: remote-max: without a url")
    with pytest.raises(UsageError, match=r"^remote-max: without a url"):
        load(pool_size=32 * MIB, remote_max=1)


# --- --show-config ---

names = st.from_regex(r"[A-Za-z0-9][A-Za-z0-9._-]{0,14}", fullmatch=True)
directories = st.builds(
    lambda name: Path("/") / name,
    st.text(st.characters(blacklist_categories=["Cc", "Cs"], blacklist_characters="/"), min_size=1),
).filter(lambda path: path.name not in {"", ".", ".."})
devices = st.builds(
    DeviceSpec,
    name=names,
    size=st.integers(16, 1 << 20).map(lambda pages: pages * 4096),
    compress=st.sampled_from([None, *COMPRESS]),
    quota=st.none() | st.just(NO_LIMIT) | st.integers(0, 1 << 40),
)
configs = st.builds(
    Config,
    settings=st.builds(
        Settings,
        instance=names,
        paths=st.lists(directories, min_size=3, max_size=3, unique=True).map(
            lambda found: InstancePaths(*found)
        ),
        pool_size=st.integers(SMALLEST_POOL, 1 << 45),
        devices=st.lists(devices, max_size=3, unique_by=lambda spec: spec.name).map(tuple),
        compress=st.sampled_from(COMPRESS),
        host_reserve=st.none() | st.integers(0, 1 << 45),
        writeback_room=st.just(0.0) | st.integers(100, 5000).map(lambda found: found / 10000),
        writeback_idle=st.sampled_from([OFF, AUTO]) | st.integers(1, LONGEST_AGE),
        writeback_rate=st.just(OFF) | st.integers(4096, 1 << 45),
        recompress_after=st.just(OFF) | st.integers(1, LONGEST_AGE),
        recompress_codec=st.sampled_from(["zstd", "lz4", OFF]),
        discard_state=st.just(False),
    ),
    threads=st.none() | st.integers(1, MOST_THREADS),
    listen=st.none() | st.just("127.0.0.1:10809"),
).flatmap(
    lambda config: st.sampled_from(
        [
            config,
            replace(config, listen="[::]:1", tls_mode="psk", tls_psk_file=Path("/k")),
            replace(config, tls_mode="x509", tls_certificates=Path("/tls")),
            replace(
                config,
                remote_url="rediss://h:1",
                remote_key_file=Path("/key"),
                remote_ca=Path("/ca"),
                remote_timeout=0.125,
                remote_max=0,
                remote_ttl=1,
            ),
        ]
    )
)


@given(configs)
def test_shown_config_says_the_same(
    tmp_path_factory: pytest.TempPathFactory, shown: Config
) -> None:
    path = tmp_path_factory.getbasetemp() / "shown.toml"
    path.write_text(as_toml(shown), encoding="utf-8")
    assert load(config=path) == shown


def test_shown_config_is_toml() -> None:
    loaded = load(pool_size=32 * MIB, devices=(DeviceSpec("a.b", MIB),))
    assert tomllib.loads(as_toml(loaded))["device"]["a.b"]["size"] == "1M"


def test_shown_config_tells_who_said_it(tmp_path: Path) -> None:
    drop_in(tmp_path, "a.toml", 'compress = "zstd"\n[device.g1]\ncompress = "none"')
    text = '# vm1\npool-size = "32M"\n[device.g1]\nsize = "64M"\n'
    loaded = load_text(tmp_path, text, threads=3, devices=(DeviceSpec("g2", MIB),))
    shown = as_toml(loaded).replace(str(tmp_path), "ETC").splitlines()
    assert {
        'pool-size = "32M"  # ETC/vm1.toml:2',
        'compress = "zstd"  # ETC/vm1.toml.d/a.toml:1',
        'instance = "default"  # default',
        "threads = 3  # --threads",
        'size = "64M"  # ETC/vm1.toml:4',
        'compress = "none"  # ETC/vm1.toml.d/a.toml:3',
        'size = "1M"  # --device',
    } <= set(shown)


def test_origin_that_is_no_comment(tmp_path: Path) -> None:
    folder = tmp_path / "a\nthreads = 7"
    folder.mkdir()
    shown = as_toml(load_text(folder, 'pool-size = "32M"'))
    assert "threads" not in tomllib.loads(shown)


# --- settings in tables of their own ---


@pytest.mark.parametrize(
    ("text", "given", "line"),
    [
        ("", {}, 'room = "5%"  # default'),
        ('[writeback]\nroom = "10%"', {}, 'room = "10%"  # vm1.toml:3'),
        ("[writeback]\nroom = 10", {}, 'room = "10%"  # vm1.toml:3'),
        ("[writeback]\nroom = 0", {}, 'room = "off"  # vm1.toml:3'),
        ('writeback.room = "off"', {}, 'room = "off"  # vm1.toml:2'),
        (
            '[writeback]\nroom = "10%"',
            {"writeback_room": 0.0},
            'room = "off"  # --writeback-room, over vm1.toml:3',
        ),
    ],
)
def test_setting_in_a_table(tmp_path: Path, text: str, given: dict[str, object], line: str) -> None:
    said = f'pool-size = "32M"\n{text}\n[device.g1]\nsize = "1M"\n'
    lines = as_toml(load_text(tmp_path, said, **given)).replace(f"{tmp_path}/", "").splitlines()
    assert lines[lines.index("[writeback]") + 1] == line
    assert lines.index("[writeback]") > lines.index('compress = "lz4"  # default')


def test_every_value_of_the_tables_is_shown_as_it_is_said(tmp_path: Path) -> None:
    text = 'pool-size = "32M"\n[writeback]\nidle = 1800\nrate = "off"\n[recompress]\nafter = "2h"\n'
    drop_in(tmp_path, "a.toml", '[writeback]\nrate = "64M/s"\n[recompress]\ncodec = "off"')
    shown = as_toml(load_text(tmp_path, text, recompress_after="off"))
    assert shown.replace(f"{tmp_path}/", "").endswith(
        "\n[writeback]\n"
        'room = "5%"  # default\n'
        'idle = "30m"  # vm1.toml:3\n'
        'rate = "64M"  # vm1.toml.d/a.toml:2\n'
        "\n[recompress]\n"
        'after = "off"  # --recompress-after, over vm1.toml:6\n'
        'codec = "off"  # vm1.toml.d/a.toml:4\n'
    )


def test_option_against_a_table_is_told(tmp_path: Path) -> None:
    loaded = load_text(
        tmp_path, 'pool-size = "32M"\n[writeback]\nidle = "off"', writeback_idle=1800
    )
    assert list(loaded.conflicts) == [
        f"writeback-idle is 30m, as the option says: off in {tmp_path}/vm1.toml:3 does not count;"
        " say it in one place only"
    ]


@pytest.mark.parametrize(
    ("line", "complaint"),
    [
        ('writeback.room = "x"', "room: 'x' is not a share: write it like 5% or 7.5%, or off"),
        ('writeback.room = "60%"', "room: 60% is out of range: from 1% to 50%, or off"),
        ("writeback.room = false", 'room: a share is expected, like "5%", or "off"'),
        ('writeback.idle = "30M"', "idle: '30M' is not a duration: write it like 30m, 2h or 90s"),
        ("writeback.idle = 0.5", 'idle: a duration is expected, like "30m", or "auto", or "off"'),
        ("writeback.rate = 32", "rate: 32 bytes a second is less than a page: at least 4K"),
        ('recompress.after = "auto"', "after: 'auto' is not a duration"),
        ('recompress.codec = "none"', "codec: 'none' is not a codec: the choices are zstd, lz4"),
        ("writeback.rom = 1", "unknown key 'rom': the choices are room, idle, rate"),
        ("recompress.idle = 1", "unknown key 'idle': the choices are after, codec"),
        ("writeback = 1", "writeback is written as a table, [writeback]"),
        ("written = 1", "[writeback], [recompress], [device.NAME]"),
    ],
)
def test_bad_setting_in_a_table(tmp_path: Path, line: str, complaint: str) -> None:
    text = refusal(tmp_path, f"\n{line}", pool_size=32 * MIB)
    assert text.startswith("vm1.toml:2: ")
    assert complaint in text


def options_of(*words: str) -> Result:
    @click.command
    @setting_options
    def command(**given: object) -> None:
        click.echo({name: value for name, value in given.items() if value is not None})

    return CliRunner().invoke(command, words)


def test_options_of_settings_in_tables() -> None:
    said = ["--writeback-room=10 %", "--writeback-idle=auto", "--writeback-rate=off"]
    said += ["--recompress-after=90", "--recompress-codec=lz4"]
    assert literal_eval(options_of(*said).output) == {
        "writeback_room": 0.1,
        "writeback_idle": "auto",
        "writeback_rate": "off",
        "recompress_after": 90,
        "recompress_codec": "lz4",
    }


@pytest.mark.parametrize(
    ("word", "complaint"),
    [
        ("--writeback-room=60%", "60% is out of range: from 1% to 50%, or off"),
        ("--recompress-after=auto", "'auto' is not a duration: write it like 30m, 2h or 90s, or"),
        ("--recompress-codec=none", "'none' is not one of 'zstd', 'lz4', 'off'"),
    ],
)
def test_bad_options_of_settings_in_tables(word: str, complaint: str) -> None:
    done = options_of(word)
    assert done.exit_code == 2
    assert complaint in done.output


# --- as many devices as there may be ---

MANY = 'pool-size = "64M"\n' + "".join(
    f'\n[device.d{number}]\nsize = "64K"\n' for number in range(MOST_DEVICES)
)


class Parser:
    """tomllib, which counts how much it is given to read."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.read = 0
        self.loads = tomllib.loads
        monkeypatch.setattr(tomllib, "loads", self.count)

    def count(self, text: str) -> dict[str, object]:
        self.read += len(text)
        return self.loads(text)


@pytest.fixture
def parser(monkeypatch: pytest.MonkeyPatch) -> Parser:
    return Parser(monkeypatch)


def test_start_reads_a_file_once(tmp_path: Path, parser: Parser) -> None:
    assert len(load_text(tmp_path, MANY).settings.devices) == MOST_DEVICES
    assert parser.read == len(MANY)


def test_shown_config_reads_a_file_twice(tmp_path: Path, parser: Parser) -> None:
    shown = as_toml(load_text(tmp_path, MANY)).splitlines()
    assert shown[-1] == f'size = "64K"  # {tmp_path}/vm1.toml:{MANY.count(chr(10))}'
    assert parser.read == 2 * len(MANY)


def test_complaint_of_the_last_line_reads_a_file_twice(tmp_path: Path, parser: Parser) -> None:
    text = f"{MANY}codec = 1\n"
    last = text.count("\n")
    assert refusal(tmp_path, text).startswith(f"vm1.toml:{last}: unknown key 'codec'")
    assert parser.read == 2 * len(text)


# --- the example ---

EXAMPLE = Path(__file__).parents[2] / "systemd/example.toml"


def uncommented() -> str:
    """A commented key has no space behind its mark, as the text around it has."""
    return re.sub(r"^#(?=[^ \n])", "", EXAMPLE.read_text(), flags=re.M)


def test_example_as_it_is_says_nothing() -> None:
    assert tomllib.loads(EXAMPLE.read_text()) == {}


def keys_in(table: Mapping[str, object] | Keys) -> set[str]:
    """With those of the tables in it."""
    return {
        f"{key} {inner}"
        for key, value in table.items()
        for inner in (keys_in(value) if isinstance(value, dict) else [""])
    }


def test_example_has_every_key_and_loads(tmp_path: Path) -> None:
    tables = tomllib.loads(uncommented())
    assert tables[DEVICE_TABLE].pop("swap0").keys() == DEVICE_KEYS.keys()
    assert tables.pop(DEVICE_TABLE) == {}
    assert tables[IMAGE_TABLE].pop("debian").keys() == IMAGE_KEYS.keys()
    assert tables.pop(IMAGE_TABLE) == {}
    assert keys_in(tables) == keys_in(INSTANCE_KEYS)
    load_text(tmp_path, uncommented())


def test_example_has_the_defaults(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(paths, "is_root", lambda: True)
    example = load_text(tmp_path, uncommented())
    said = example.settings
    defaults = load(instance="default", pool_size=said.pool_size).settings
    assert (said.instance, said.paths, said.compress) == (
        defaults.instance,
        defaults.paths,
        defaults.compress,
    )
    for setting in POLICY:
        assert getattr(said, setting.parameter) == getattr(defaults, setting.parameter)
    assert example.threads == THREADS
    assert said.host_reserve == SMALLEST_RESERVE


def test_example_of_images_is_what_the_guide_says(tmp_path: Path) -> None:
    example = EXAMPLE.with_name("images.toml").read_text()
    (image,) = load_text(tmp_path, example).images
    assert (image.name, image.path) == ("debian", Path("/srv/images/debian.raw"))
    guide = (EXAMPLE.parents[1] / "docs/guides/images.md").read_text()
    said = guide.partition("```toml\n")[2].partition("```")[0]
    assert tomllib.loads(said) == tomllib.loads(example)
