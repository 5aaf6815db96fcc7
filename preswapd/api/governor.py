# SPDX-License-Identifier: BSD-3-Clause
"""What the governor says of itself on its socket, and the operator's end of that."""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, TypedDict, cast

from preswapd.api.client import Client
from preswapd.api.exposition import families, family
from preswapd.api.figures import BYTES, GAUGE, Figure, catalogue, counter, gauge
from preswapd.api.wire import PREFIX
from preswapd.errors import UnreachableError

PATH = "/governor"
GOVERNOR_PATH = PREFIX + PATH


class GovernorFigures(TypedDict):
    """The host as the governor sees it, and all pools together."""

    reserve: Annotated[int, gauge("memory of the host that is to stay available", BYTES)]
    available: Annotated[int, gauge("memory that the host's programs could still get", BYTES)]
    pressure: Annotated[
        float | None,
        Figure("gauge", "percent of the time in which some program waits for memory"),
    ]
    used: Annotated[int, gauge("memory that the pools take", BYTES)]
    room: Annotated[
        int, gauge("memory that the pools could take and leave the reserve as it is", BYTES)
    ]
    total: Annotated[int, gauge("memory that the pools may take together", BYTES)]
    decisions_made: Annotated[int, counter("decisions since the governor's start")]
    taken: Annotated[int, counter("times that memory was taken back since the governor's start")]


class GovernedFigures(TypedDict):
    """One instance."""

    used: Annotated[int, gauge("memory that the pool takes", BYTES)]
    idle: Annotated[int, gauge("of that, what nobody has used for 30 minutes", BYTES)]
    limit: Annotated[
        int | None, gauge("the limit that the governor has set, null while there is none", BYTES)
    ]
    pool_limit: Annotated[int, gauge("the operator's limit", BYTES)]
    floor: Annotated[int, gauge("memory that the pool may take whatever is short", BYTES)]
    cap: Annotated[int, gauge("the most memory that the pool may take", BYTES)]
    weight: Annotated[int, gauge("its part of what is there for all")]
    excess: Annotated[
        int, gauge("memory of the pool that is still to go: to disk, or, of images, nowhere", BYTES)
    ]


class Governed(GovernedFigures):
    why: str  # a sentence


class Made(TypedDict):
    """One decision."""

    time: float  # seconds since 1970
    reason: str
    sentence: str
    available: int
    reserve: int
    pressure: float | None
    used: int
    room: int
    total: int
    excess: int
    limits: dict[str, int]  # of those that were changed
    before: dict[str, int | None]


class GovernorStatus(GovernorFigures):
    """The answer to `GET /v1/governor`."""

    version: str
    pid: int
    start_time: float
    dry_run: bool
    files: list[str]  # of the configuration
    instances: dict[str, Governed]
    absent: dict[str, str]  # those that are not governed, and why
    decisions: list[Made]  # the last ones, the newest last


FIGURES, INSTANCE_FIGURES = catalogue(GovernorFigures), catalogue(GovernedFigures)


class Governor(Client):
    """The governor, reached through its socket."""

    def status(self) -> GovernorStatus:
        try:
            return cast(GovernorStatus, self._get(PATH))
        except UnreachableError as error:
            raise UnreachableError(
                f"no governor answers at {self.socket_path}: systemctl start preswapd-governor, or"
                f" run preswapd govern ({error})"
            ) from None


def governor_text(status: GovernorStatus) -> str:
    """What the governor says of itself and of those that it governs."""
    build = family(
        "preswapd_governor_build_info",
        GAUGE,
        "The governor's version.",
        [({"version": status["version"]}, 1.0)],
    )
    own = families("preswapd_governor", FIGURES, [({}, known(status))])
    each = families(
        "preswapd_governor_instance",
        INSTANCE_FIGURES,
        [({"instance": name}, known(found)) for name, found in status["instances"].items()],
    )
    return "".join(f"{line}\n" for line in (*build, *own, *each))


def known(figures: Mapping[str, Any]) -> Mapping[str, Any]:
    """Without what is null."""
    return {key: value for key, value in figures.items() if value is not None}


def governor(runtime_dir: Path) -> Governor:
    return Governor(runtime_dir / "control.sock")
