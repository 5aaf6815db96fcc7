# SPDX-License-Identifier: BSD-3-Clause
"""The configuration: files and options, merged."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from preswapd.api.settings import INSTANCE, START, Place, said_in
from preswapd.errors import UsageError
from preswapd.paths import (
    DEFAULT_INSTANCE,
    InstancePaths,
    config_file,
    default_runtime_dir,
    default_shm_dir,
    default_state_dir,
)
from preswapd.precache.settings import MOST_IMAGES, ImageSpec
from preswapd.preswap.settings import DeviceSpec, Settings
from preswapd.remote.settings import StoreSettings
from preswapd.server.config.files import DEVICE_TABLE, IMAGE_TABLE, ConfigFiles, with_drop_ins
from preswapd.server.config.reach import WHERE, TlsKeys, check_reach
from preswapd.server.config.remote import check_remote, said
from preswapd.server.config.toml_lines import At
from preswapd.units import exact_size

DEFAULT = "default"
# An option of its own, as `--image` has no room for it.
WRITABLE = "writable"

# Values of settings by `Setting.parameter`; nothing where nobody said one.
Values = Mapping[str, Any]


@dataclass(frozen=True)
class Config:
    """What `preswapd serve` serves, and how; `origin` finds out where a value came from."""

    settings: Settings
    images: tuple[ImageSpec, ...] = ()
    threads: int | None = None
    listen: str | None = None
    tls_mode: str | None = None
    tls_certificates: Path | None = None
    tls_psk_file: Path | None = None
    remote_url: str | None = None
    remote_password_file: Path | None = None
    remote_key_file: Path | None = None
    remote_image_key_file: Path | None = None
    remote_ca: Path | None = None
    remote_cert: Path | None = None
    remote_key: Path | None = None
    remote_timeout: float | None = None  # milliseconds
    remote_max: int | None = None  # bytes
    remote_ttl: int | None = None  # seconds
    origin: Callable[[At], str | None] = field(default=lambda at: None, compare=False, repr=False)
    # Values of a file that do not count, as an option says otherwise: a sentence for each.
    conflicts: tuple[str, ...] = field(default=(), compare=False)

    @property
    def tls(self) -> TlsKeys | None:
        """None without TLS."""
        return TlsKeys(self.tls_mode, vars(self)[WHERE[self.tls_mode]]) if self.tls_mode else None

    @property
    def store(self) -> StoreSettings | None:
        """None without a remote tier."""
        return StoreSettings(**said(vars(self))) if self.remote_url else None


def load(
    config: Path | None = None,
    devices: Sequence[DeviceSpec] = (),
    images: Sequence[ImageSpec] = (),
    writable: Sequence[str] = (),
    discard_state: bool = False,
    accept_moved: bool = False,
    system: bool = False,
    **options: Any,
) -> Config:
    """Options win over files, later files over earlier ones, and all over the defaults.

    `options` are those of settings, by `Setting.parameter`; None where nothing was said.  `system`:
    the defaults of directories are the system's, also for a user other than root.  `writable`: the
    names of images.
    """
    given = {parameter: value for parameter, value in options.items() if value is not None}
    path = config or config_file(given.get("instance", DEFAULT_INSTANCE))
    files = with_drop_ins(path, required=config is not None)
    values = merge(files, given)
    if "pool_size" not in values:
        raise UsageError(f"the pool needs a size: give --pool-size, or pool-size in {path}")
    check_reach(values, files.place)
    instance = values.setdefault("instance", DEFAULT_INSTANCE)
    paths = merge_paths(instance, values, system)
    check_remote(values, files.place, paths.state_dir)
    settings = Settings(
        paths=paths,
        devices=merge_devices(files.devices(), devices),
        discard_state=discard_state,
        accept_moved=accept_moved,
        **fields_of(Settings, values),
    )
    return Config(
        settings,
        merge_images(files.images(), images, writable, settings.devices),
        origin=lambda at: origin(at, files, given, writable),
        conflicts=tuple(conflicts(files, given)),
        **fields_of(Config, values),
    )


def merge(files: ConfigFiles, given: Values) -> dict[str, Any]:
    values = {
        setting.parameter: files.values[setting.at]
        for setting in said_in(Place.FILE, INSTANCE)
        if setting.at in files.values
    }
    before, wanted = values.get("instance"), given.get("instance")
    if None not in (before, wanted) and before != wanted:
        place = files.place(("instance",))
        raise UsageError(f"--instance is {wanted}, but {place} says {before}")
    return {**values, **given}


def conflicts(files: ConfigFiles, given: Values) -> Iterator[str]:
    for setting in said_in(Place.FILE, INSTANCE):
        option, value = given.get(setting.parameter), files.values.get(setting.at)
        if option is None or value is None or same(option, value):
            continue
        ours, theirs = (setting.kind.to_toml(each) for each in (option, value))
        yield (
            f"{setting.name} is {ours}, as the option says: {theirs} in"
            f" {files.place(setting.at)} does not count; say it in one place only"
        )


def same(option: Any, value: Any) -> bool:
    return bool((option.absolute() if isinstance(option, Path) else option) == value)


def fields_of(kind: type[Settings] | type[Config], values: Values) -> dict[str, Any]:
    """The values for the class's fields, each of which has its setting's name."""
    return {each.name: values[each.name] for each in fields(kind) if each.name in values}


def origin(at: At, files: ConfigFiles, given: Values, writable: Sequence[str]) -> str:
    """Where a value came from: FILE:LINE, the option, or the default."""
    place = files.place(at)
    if at[0] in (DEVICE_TABLE, IMAGE_TABLE):
        name, is_given = at[-1], at[-1] == WRITABLE and at[1] in writable
        if not is_given:
            return place or f"--{at[0]}"
    else:
        name = "-".join(at)
        if name.replace("-", "_") not in given:
            return place or DEFAULT
    return f"--{name}, over {place}" if place else f"--{name}"


def merge_paths(instance: str, values: Values, system: bool) -> InstancePaths:
    defaults = (
        ("runtime_dir", default_runtime_dir),
        ("shm_dir", default_shm_dir),
        ("state_dir", default_state_dir),
    )
    found = [
        Path(values[name] if name in values else default(instance, system))
        for name, default in defaults
    ]
    try:
        merged = [path.absolute() for path in found]
    except FileNotFoundError:
        raise UsageError("the working directory is gone: give absolute directories") from None
    if len(set(merged)) < len(merged):
        raise UsageError("runtime-dir, shm-dir and state-dir must be three different directories")
    return InstancePaths(*merged)


def merge_devices(
    configured: dict[str, DeviceSpec], given: Sequence[DeviceSpec]
) -> tuple[DeviceSpec, ...]:
    """A device named in both places must be the same in both."""
    devices = dict(configured)
    for spec in given:
        before = devices.setdefault(spec.name, spec)
        if before.size != spec.size:
            raise UsageError(
                f"the device {spec.name} is given twice, with {exact_size(before.size)} and"
                f" {exact_size(spec.size)}"
            )
    return tuple(devices.values())


def merge_images(
    configured: dict[str, ImageSpec],
    given: Sequence[ImageSpec],
    writable: Sequence[str],
    devices: Sequence[DeviceSpec],
) -> tuple[ImageSpec, ...]:
    """The same; and clients know images and devices by one name only."""
    images = {name: with_whole_path(spec) for name, spec in configured.items()}
    for spec in map(with_whole_path, given):
        before = images.setdefault(spec.name, spec)
        if before.path != spec.path:
            raise UsageError(
                f"the image {spec.name} is given twice, as {before.path} and {spec.path}"
            )
    for name in writable:
        if name not in images:
            raise UsageError(f"--writable {name} names no image: give --image {name}=PATH, too")
        images[name] = replace(images[name], writable=True)
    check_writers(tuple(images.values()))
    for device in devices:
        if device.name in images:
            raise UsageError(f"{device.name} is a device and an image: give one another name")
    if len(images) > MOST_IMAGES:
        raise UsageError(f"an instance can have at most {MOST_IMAGES} images")
    return tuple(images.values())


def check_writers(images: Sequence[ImageSpec]) -> None:
    for spec in images:
        others = [other.name for other in images if other is not spec and other.path == spec.path]
        if spec.writable and others:
            raise UsageError(
                f"{spec.path} is the images {spec.name} and {others[0]}, and {spec.name} is"
                " writable: a disk that is written to is one image"
            )


def with_whole_path(spec: ImageSpec) -> ImageSpec:
    try:
        return replace(spec, path=spec.path.absolute())
    except FileNotFoundError:
        raise UsageError("the working directory is gone: give an absolute path") from None


def in_force(config: Config) -> dict[str, Any]:
    """The value of every setting of the instance, by `Setting.parameter`."""
    values = {**vars(config), **vars(config.settings), **vars(config.settings.paths)}
    return {
        setting.parameter: values[setting.parameter]
        for setting in INSTANCE
        if setting.places & START
    }
