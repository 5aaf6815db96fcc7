# SPDX-License-Identifier: BSD-3-Clause
"""`images`, and what the other commands show of images or say to who takes one for a device."""

import json
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import cast

import pytest
from prometheus_client.parser import text_string_to_metric_families

from preswapd.api.figures import Statistics
from preswapd.cli.instances import Instances, UnknownError
from preswapd.cli.look.columns import IMAGE_COLUMNS
from preswapd.cli.look.rows import Moment, images_of
from preswapd.errors import RefusedError
from preswapd.units import PAGE_SIZE as PAGE
from tests.cli.look.printed import rows
from tests.clients import connected
from tests.precache.running import MIB, content
from tests.running import PRESWAPCTL, RunningServer, run, wait_for

SIZE = 4 * MIB
# Commands that are for a device, with an image's name in its place.
FOR_DEVICES = [
    "stats base",
    "stats base --watch --count 1",
    "stats base --json-lines --count 1",
    "ages base",
    "advise base",
    "shrink 0 base",
    "shrink --idle 1m base",
    "sync base",
    "swapoff base --yes",
    "trim base --yes",
    "remove base --yes",
    "mkswap base --yes",
    "guest-setup base",
    "sysctl vm.preswap.base",
    "sysctl vm.preswap.base=0",
    "sysctl preswap.default.base.quota=1M",
]


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("image") / "base.raw"
    made.write_bytes(content(SIZE))
    return made


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory, base: Path) -> Iterator[RunningServer]:
    """A device and two images, one of them missing."""
    options = [f"--image=base={base}", f"--image=late={base}.late"]
    folder = tmp_path_factory.mktemp("server")
    with RunningServer(folder, {"g1": "64M"}, "32M", options) as made:
        wait_for(lambda: made.image("base")["cached"], bool)
        yield made


@pytest.fixture
def own(tmp_path: Path) -> Iterator[tuple[RunningServer, Path]]:
    """One that may be changed: nothing but an image, and its file."""
    path = tmp_path / "base.raw"
    path.write_bytes(content(SIZE))
    with RunningServer(tmp_path, {}, "32M", [f"--image=base={path}"]) as made:
        yield made, path


def states(server: RunningServer) -> dict[str, str]:
    return {name: found["state"] for name, found in server.json_stats()["images"].items()}


def top(server: RunningServer) -> str:
    """A wide frame."""
    command = [PRESWAPCTL, f"--runtime-dir={server.runtime_dir}", "top", "-b", "-n1"]
    return run(command, env={"COLUMNS": "200"}).stdout


def test_a_row_for_each_image(images: RunningServer, base: Path) -> None:
    client = connected(images, "base")
    for _ in range(2):
        client.pread(MIB, 0)
    done = images.ctl("images", "-rb", "-o", "+RATIO,HITS,MISSES,DISKREADS")
    (row,) = rows(done.stdout)
    assert (row["NAME"], row["INSTANCE"], row["PATH"]) == ("base", "default", str(base))
    assert (row["SIZE"], row["CLIENTS"], row["STATE"]) == (str(SIZE), "1", "cached")
    assert int(row["CACHED"]) >= MIB > int(row["MEMORY"]) > 0
    assert float(row["RATIO"]) > 1
    assert int(row["HITS"]) >= 256
    assert float(row["HIT%"]) >= 50
    assert done.stderr.startswith(
        f"preswapctl: default: the image late is not served: {base}.late is missing: "
    )
    assert done.stderr.count("\n") == 1
    client.shutdown()


def test_pool_has_them_in_its_sums(images: RunningServer) -> None:
    client = connected(images, "base")
    client.pread(MIB, 0)
    wait_for(images.json_stats, lambda stats: not stats["tmem"]["staged_pages"])
    (pool,) = rows(images.ctl("stats", "-rb", "-o", "USED,IMAGES,ORIG").stdout)
    (image,) = rows(images.ctl("images", "base", "-rb", "-o", "CACHED,MEMORY").stdout)
    assert pool["IMAGES"] == image["MEMORY"]
    assert pool["ORIG"] == image["CACHED"]
    assert int(pool["USED"]) > int(pool["IMAGES"]) > 0
    client.shutdown()


def test_json_is_that_of_the_statistics(images: RunningServer) -> None:
    stats = images.json_stats()
    found = json.loads(images.ctl("--json", "images").stdout)
    assert found["instance"] == "default"
    assert found["images"].keys() == stats["images"].keys() == {"base"}
    assert found["images"]["base"] == stats["images"]["base"]
    assert found["refused_images"] == stats["refused_images"]
    wanted = "size connections reads hits misses puts evicted cached_pages cached_bytes disk_reads"
    assert {*wanted.split(), "disk_writes"} <= found["images"]["base"].keys()


def test_one_of_them(images: RunningServer) -> None:
    assert rows(images.ctl("images", "base", "-r").stdout)[0]["NAME"] == "base"
    assert images.ctl("images", "base").stderr == ""
    late = json.loads(images.ctl("--json", "images", "late").stdout)
    assert (late["images"], list(late["refused_images"])) == ({}, ["late"])
    done = images.ctl("images", "g1", check=False)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "preswapctl: there is no image 'g1' in run\n"


def test_server_without_images_says_so(module_server: RunningServer) -> None:
    done = module_server.ctl("images")
    assert (done.stdout, done.stderr) == ("", "there are no images\n")
    found = json.loads(module_server.ctl("--json", "images").stdout)
    assert found == {"instance": "default", "images": {}, "refused_images": {}}


def test_server_without_images_looks_as_before(module_server: RunningServer) -> None:
    for command in (["stats"], ["top", "-b", "-n1"], ["list"], ["metrics"]):
        done = module_server.ctl(*command)
        assert "image" not in (done.stdout + done.stderr).lower(), command
        assert "CACHED" not in done.stdout, command


def test_figures_are_among_all_figures(images: RunningServer) -> None:
    text = images.ctl("stats").stdout.partition("\nimage base\n")[2]
    assert re.search(rf"^  size +{SIZE}  4M$", text, re.M)
    assert re.search(r"^  state +cached$", text, re.M)
    assert re.search(r"^  cache +-$", text, re.M)
    assert re.search(r"^  read_p50 ", text, re.M)


def test_top_has_them_below_the_devices(images: RunningServer) -> None:
    client = connected(images, "base")
    client.pread(MIB, 0)
    lines = top(images).splitlines()
    device, image = (
        next(number for number, line in enumerate(lines) if line.startswith(f"  {name} "))
        for name in ("g1", "base")
    )
    assert device < image
    head, row = lines[image - 1].split(), lines[image].split()
    assert dict(zip(head, row, strict=True))["STATE"] == "cached"
    assert lines[image + 1].startswith("  late is not served: ")
    client.shutdown()


def test_top_of_images_alone(own: tuple[RunningServer, Path]) -> None:
    text = top(own[0])
    assert text.count("NAME") == 1
    assert "MISSES/S" in text


def test_rates() -> None:
    def moment(clock: float, hits: int) -> Moment:
        figures = {"hits": hits, "misses": hits // 4, "disk_reads": 0}
        stats = {"instance": "images", "images": {"base": figures}}
        return Moment(cast(Statistics, stats), clock, clock)

    (row,) = images_of(moment(12.0, 400), moment(10.0, 0))
    assert (row.rate("hits"), row.rate("misses")) == (200, 50)
    (hits,) = (column for column in IMAGE_COLUMNS if column.name == "HIT%")
    assert hits.text(row) == "80.0"
    assert images_of(Moment(cast(Statistics, {"instance": "old"}), 0.0, 0.0)) == []


def test_list_leads_to_them(own: tuple[RunningServer, Path]) -> None:
    done = own[0].ctl("list")
    assert (
        done.stderr == "preswapctl: instance default has images: `preswapctl images` shows them\n"
    )


def test_metrics(images: RunningServer) -> None:
    client = connected(images, "base")
    client.pread(MIB, 0)
    text = images.ctl("metrics").stdout
    samples = {
        (sample.name, sample.labels["image"]): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
        if "image" in sample.labels and not {"le", "operation"} & sample.labels.keys()
    }
    operations = {
        sample.labels["operation"]: sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
        if sample.name == "preswapd_image_request_duration_seconds_count"
    }
    assert operations["read"] > operations["write"] == 0

    assert samples["preswapd_image_served", "base"] == 1
    assert samples["preswapd_image_served", "late"] == 0
    assert samples["preswapd_image_size_bytes", "base"] == SIZE
    assert samples["preswapd_image_cached", "base"] == 1
    assert samples["preswapd_image_cached_pages", "base"] >= MIB // PAGE
    assert samples["preswapd_image_misses_total", "base"] >= MIB // PAGE
    client.shutdown()


# --- what its file is ---


def test_state_follows_the_file(own: tuple[RunningServer, Path]) -> None:
    server, path = own
    assert states(server)["base"] in ("not settled", "cached")
    wait_for(lambda: states(server)["base"], lambda state: state == "cached")
    with open(path, "r+b") as file:
        file.write(b"changed")
    assert states(server)["base"] == "changed"
    wait_for(lambda: states(server)["base"], lambda state: state == "cached")
    os.truncate(path, SIZE // 2)
    wait_for(lambda: states(server)["base"], lambda state: state == "shrunk")
    os.truncate(path, 2 * SIZE)
    wait_for(lambda: states(server)["base"], lambda state: state == "grown")
    assert connected(server, "base").get_size() == SIZE
    os.truncate(path, SIZE)
    wait_for(lambda: states(server)["base"], lambda state: state == "cached")
    os.replace(path, f"{path}.old")
    path.write_bytes(bytes(SIZE))
    wait_for(lambda: server.image("base")["replaced"], bool)
    # It lost its name, which is a change too.
    told = "base cached,replaced\n"
    wait_for(lambda: server.ctl("images", "-rn", "-o", "NAME,STATE").stdout, lambda t: t == told)


# --- commands that are for devices ---


@pytest.mark.parametrize("command", FOR_DEVICES)
def test_an_image_is_no_device(images: RunningServer, command: str) -> None:
    done = images.ctl(*command.split(), check=False)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("preswapctl: base is an image of default and no swap device: ")
    assert "`preswapctl images base`" in done.stderr
    assert done.stderr.count("\n") == 1


def test_an_image_is_found_among_all_instances(
    images: RunningServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("preswapd.cli.instances.runtime_root", lambda: images.runtime_dir.parent)
    monkeypatch.setattr("preswapd.cli.instances.default_shm_dirs", dict)
    instances = Instances()
    for ask in (instances.having, instances.serving):
        with pytest.raises(UnknownError, match="base is an image of run and no swap device"):
            ask("base")
    instance, image = instances.exporting("base")
    assert (instance.name, image is not None and image["size"]) == ("default", SIZE)
    assert instances.exporting("g1")[1] is None
    with pytest.raises(RefusedError, match=r"the image late is not served: .*late is missing"):
        instances.exporting("late")
    with pytest.raises(UnknownError, match="there is no device or image 'g9' in run"):
        instances.exporting("g9")


def test_new_device_must_have_another_name(images: RunningServer) -> None:
    done = images.ctl("create", "base", "64M", check=False)
    assert (done.returncode, done.stderr.count("\n")) == (4, 1)
    assert "image's name" in done.stderr
