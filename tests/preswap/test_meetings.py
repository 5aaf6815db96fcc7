# SPDX-License-Identifier: BSD-3-Clause
"""What meets a page on its way to disk or back, played out step by step by meetings.c.

The same with a rule left out is found: each of these faults loses a page, or serves a stale one.
"""

import shutil
import subprocess
from pathlib import Path

import pytest

from tests.compiling import BLOCK, DEVICE, LIBRARIES, PACKAGE, REMOTE, TMEM, sources

HERE = Path(__file__).parent
COPIES = (
    "copy_goes_with_a_write_to_disk",
    "copy_goes_with_its_page",
    "copy_meets_a_put",
    "copy_meets_a_put_and_its_writeback",
    "copy_meets_a_trim",
    "copy_meets_a_write_to_disk",
    "copy_meets_nobody",
    "copy_that_is_noted_meets_a_put",
    "copy_that_is_noted_meets_a_write_to_disk",
)
READS = (
    "read_meets_a_put",
    "read_meets_a_put_and_a_trim",
    "read_meets_a_put_and_its_writeback",
    "read_meets_a_read",
    "read_meets_a_sync",
    "read_meets_a_trim",
    "read_meets_a_write_to_disk",
    "read_meets_nobody",
    "refaults",
    "weighed_page_is_read",
)
WRITEBACKS = (
    "writeback_meets_a_put",
    "writeback_meets_a_read",
    "writeback_meets_a_slot_filled_again",
    "writeback_meets_a_trim",
    "writeback_meets_a_write_to_disk",
    "writeback_meets_nobody",
)
WAYS = ("shrink", "idle", "heavy")
CASES = [(case, 0) for case in (*READS, *COPIES)]
CASES += [(case, way) for case in WRITEBACKS for way in range(3)]
# A file, what is left out of it, what stands there instead, and the case that finds it.
PLACE_IS = "place_is(d, page, handle, &on_disk) &&"
IS_UNCHANGED = "bool unchanged = place_is(d, page, &handle, noted);"
IS_SAME_SEQ = " && slot.seq == noted->slot.seq"
READ_MARK = "\tmarks_take(&d->marks, &mark, first, pages, false);\n\tfor"
DROPPED = "\t}\n\tmarks_drop(&d->marks, &mark);\n\treturn err;\n}\n\n/* So many of"
UNMARKED = [
    ("requests.c", READ_MARK, "\tfor"),
    ("requests.c", DROPPED, "\t}\n\t(void)mark;\n\treturn err;\n}\n\n/* So many of"),
]
NOTED = "\tif (copies)\n\t\tcopies_note(copies, page);\n"
SENT = "\tif (copies)\n\t\tcopies_end(copies);\n"
NOTED_LATER = (
    "\tfor (uint64_t i = 0; copies && i < pages; i++)\n\t\tcopies_note(copies, first + i);\n"
)
SINCE = "!epochs_is_since(d->epochs, epochs_number(&d->touched[page]), d->weighed)"
FAULTS = {
    "what_comes_back_is_published_unseen": (
        [("promotion.c", PLACE_IS, "")],
        "read_meets_a_put",
    ),
    "what_comes_back_replaces_a_trim": (
        [("promotion.c", PLACE_IS, "!d->tmem->find(d->host, handle).ref &&")],
        "read_meets_a_trim",
    ),
    "what_comes_back_meets_a_sync": (
        [("promotion.c", " && !device_over_quota(d) &&", " &&")],
        "read_meets_a_sync",
    ),
    "what_comes_back_is_read_without_the_mark": (
        UNMARKED,
        "read_meets_a_put_and_its_writeback",
    ),
    "a_copy_is_read_without_the_mark": (UNMARKED, "copy_meets_a_put_and_its_writeback"),
    "a_copy_outlives_its_page": (
        [("places.c", "\tcopies_forget(d, page);\n", "")],
        "copy_goes_with_its_page",
    ),
    "a_copy_is_noted_after_the_mark": (
        [("writeback.c", NOTED, "\t(void)copies;\n"), ("writeback.c", SENT, NOTED_LATER + SENT)],
        "copy_that_is_noted_meets_a_write_to_disk",
    ),
    "writeback_does_not_look_again": (
        [("places.c", IS_UNCHANGED, "bool unchanged = true; (void)noted;")],
        "writeback_meets_a_put",
    ),
    "writeback_compares_slots_only": (
        [("places.c", IS_SAME_SEQ, "")],
        "writeback_meets_a_slot_filled_again",
    ),
    "what_was_touched_since_goes": ([("weights.h", SINCE, "true")], "weighed_page_is_read"),
}


FLAGS = ["-std=gnu11", "-g", "-O0", "-Wall", "-Wextra"]
WRAPPED = [f"-Wl,--wrap={name}" for name in ("disk_read", "disk_write", "codec_pack")]


def built(folder: Path, tmem: list[str], device: Path = DEVICE) -> Path:
    program = folder / "meetings"
    includes = [f"-I{path}" for path in (PACKAGE / "native", TMEM, BLOCK, REMOTE, device)]
    files = [str(HERE / "meetings.c"), *sources(BLOCK, device), *tmem]
    command = ["cc", *FLAGS, *WRAPPED, *includes, "-o", str(program), *files, *LIBRARIES]
    subprocess.run(command, check=True)
    return program


@pytest.fixture(scope="module", name="tmem")
def objects(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """The page store, which none of the faults is in."""
    folder = tmp_path_factory.mktemp("tmem")
    includes = [f"-I{path}" for path in (PACKAGE / "native", TMEM)]
    subprocess.run(["cc", *FLAGS, *includes, "-c", *sources(TMEM)], cwd=folder, check=True)
    return [str(file) for file in folder.glob("*.o")]


def played(program: Path, files: Path, case: str, way: int) -> subprocess.CompletedProcess[str]:
    command = [str(program), str(files), case, str(way)]
    return subprocess.run(command, capture_output=True, text=True, timeout=60)


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory, tmem: list[str]) -> Path:
    return built(tmp_path_factory.mktemp("meetings"), tmem)


@pytest.mark.parametrize(
    ("case", "way"), CASES, ids=lambda value: WAYS[value] if isinstance(value, int) else value
)
def test_meetings(program: Path, base: Path, case: str, way: int) -> None:
    ended = played(program, base, case, way)
    assert (ended.returncode, ended.stderr) == (0, "")


@pytest.mark.parametrize("fault", FAULTS)
def test_a_rule_left_out_is_found(tmp_path: Path, base: Path, tmem: list[str], fault: str) -> None:
    changes, case = FAULTS[fault]
    device = tmp_path / "device"
    shutil.copytree(DEVICE, device, ignore=shutil.ignore_patterns("*.so", "_*", "__pycache__"))
    for name, rule, instead in changes:
        text = (device / name).read_text()
        assert text.count(rule) == 1, f"{name} says otherwise now: {rule}"
        (device / name).write_text(text.replace(rule, instead))
    ended = played(built(tmp_path, tmem, device), base, case, 0)
    assert ended.returncode == 1
    assert ended.stderr.startswith("not so: ")
