# SPDX-License-Identifier: BSD-3-Clause
"""What callgrind wrote, added up by whose code it is."""

from pathlib import Path

from benchmarks import instructions

WORKER = """\
events: Ir
summary: 500
ob=/usr/sbin/nbdkit
fl=???
fn=0x0000000000012345
0 100
cob=/usr/lib/x86_64-linux-gnu/libpython3.13.so.1.0
cfn=PyGILState_Ensure
calls=7 0
0 250

ob=/usr/lib/x86_64-linux-gnu/libpython3.13.so.1.0
fl=???
fn=PyGILState_Ensure
0 250
0 50

ob=/src/preswapd/tmem/_tmem.cpython-313-x86_64-linux-gnu.so
fl=tmem/page.c
fn=page_find
12 40
+3 60

totals: 500
"""
COMPRESSING = """\
events: Ir
ob=/usr/lib/x86_64-linux-gnu/liblz4.so.1.10.0
fl=???
fn=LZ4_compress_fast_extState
0 900
"""


def test_costs_of_calls_are_not_counted_twice() -> None:
    assert instructions.by_owners(WORKER) == {"nbdkit": 100, "Python": 300, "ours": 100}


def test_threads_without_nbdkit_work_afterwards(tmp_path: Path) -> None:
    for name, text in (("out-01", WORKER), ("out-02", COMPRESSING)):
        (tmp_path / name).write_text(text)
    found = instructions.per_page(sorted(tmp_path.iterdir()), 10)
    assert found == {"nbdkit": 10, "Python": 30, "ours": 10, "afterwards": 90}
    assert instructions.row("x", found)[:3] == ["x", "50", "10"]


def test_whose_code_a_file_is() -> None:
    owners = {
        "/usr/lib/x86_64-linux-gnu/nbdkit/plugins/nbdkit-python-plugin.so": "nbdkit",
        "/usr/lib/x86_64-linux-gnu/nbdkit/plugins/nbdkit-memory-plugin.so": "nbdkit",
        "/src/nbd_plugin/_callbacks.cpython-311-x86_64-linux-gnu.so": "ours",
        "/usr/lib/x86_64-linux-gnu/libc.so.6": "C library",
        "/usr/lib/x86_64-linux-gnu/libxxhash.so.0.8.1": "codecs, checksum",
        "???": "other",
    }
    for file, owner in owners.items():
        assert instructions.owner_of(file) == owner, file
