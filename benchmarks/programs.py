# SPDX-License-Identifier: BSD-3-Clause
"""Real programs with real data in them, alive for as long as their memory is read.

All work on the sources of Python's standard library, which are on every host that runs this.
"""

import shutil
import socket
import subprocess
import sys
import sysconfig
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from itertools import islice
from pathlib import Path

from benchmarks.host_usage import memory_of
from preswapd.guest.faults import SetupError
from preswapd.guest.programs import find

STDLIB = Path(sysconfig.get_path("stdlib"))
READY_SECONDS = 120.0
POLL_SECONDS = 0.01
BATCH = 500

# Both grow until they have so many bytes of memory, then say so and wait to be ended.
PYTHON = """
import ast, pathlib, re, sys
words, trees = {}, []
def memory():
    status = pathlib.Path("/proc/self/status").read_text()
    return int(re.search(r"RssAnon:\\s+(\\d+)", status)[1]) * 1024
for path in sorted(pathlib.Path(sys.argv[1]).rglob("*.py")):
    text = path.read_text(errors="replace")
    for number, line in enumerate(text.splitlines()):
        for word in line.split():
            words.setdefault(word, []).append((path.name, number))
    try:
        trees.append(ast.parse(text))
    except (SyntaxError, ValueError):
        pass
    if memory() > int(sys.argv[2]):
        break
print("ready", flush=True)
sys.stdin.read()
"""
NODE = """
const fs = require("fs"), path = require("path")
const [top, wanted] = process.argv.slice(1)
const lines = [], words = new Map()
const status = () => fs.readFileSync("/proc/self/status", "utf8")
const memory = () => status().match(/RssAnon:\\s+(\\d+)/)[1] * 1024
const full = () => memory() > Number(wanted)
function read(folder) {
  for (const entry of fs.readdirSync(folder, { withFileTypes: true })) {
    if (full()) return
    const name = path.join(folder, entry.name)
    if (entry.isDirectory()) read(name)
    else if (name.endsWith(".py"))
      fs.readFileSync(name, "utf8").split("\\n").forEach((text, number) => {
        lines.push({ file: entry.name, number, text })
        for (const word of text.split(/\\W+/))
          words.set(word, [...(words.get(word) || []).slice(-20), lines.length])
      })
  }
}
read(top)
console.log("ready")
process.stdin.resume()
"""
# What keeps a compiler busy: templates of the standard library, made use of.
CPLUSPLUS = """
#include <algorithm>
#include <filesystem>
#include <functional>
#include <future>
#include <iostream>
#include <map>
#include <random>
#include <regex>
#include <sstream>
#include <unordered_map>
#include <variant>
template <int N> struct Worker {
  std::map<std::string, std::vector<std::variant<int, double, std::string>>> values;
  std::unordered_map<int, std::function<int(int)>> steps;
  bool matches(const std::string &text) {
    return std::regex_search(text, std::regex("(a|b+)*c{" + std::to_string(N) + "}"));
  }
  void sort(std::vector<std::pair<std::string, int>> &all) {
    std::sort(all.begin(), all.end(), [](auto &a, auto &b) { return a.second * N < b.second; });
  }
};
template struct Worker<1>; template struct Worker<2>; template struct Worker<3>;
template struct Worker<4>; template struct Worker<5>; template struct Worker<6>;
int main() { return Worker<7>().matches("abc"); }
"""


@contextmanager
def python(size: int) -> Iterator[int]:
    """An interpreter with an index of words and syntax trees in it; its process's number."""
    with talking([sys.executable, "-c", PYTHON, str(STDLIB), str(size)]) as process:
        yield process.pid


@contextmanager
def node(size: int) -> Iterator[int]:
    """A JavaScript engine with an index of words and lines in it."""
    with talking([tool("node", "nodejs"), "-e", NODE, str(STDLIB), str(size)]) as process:
        yield process.pid


@contextmanager
def compiler(size: int) -> Iterator[int]:
    """cc1plus, stopped by whoever reads it; it may end before it has so much memory."""
    with tempfile.TemporaryDirectory(prefix="preswapd-bench-") as folder:
        source = Path(folder) / "source.cc"
        source.write_text(CPLUSPLUS)
        # Without the driver, whose child it would be; that also knows Debian's folder of headers.
        multiarch = said("multiarch")
        headers = ["-imultiarch", multiarch] if multiarch else []
        command = [said("prog-name=cc1plus"), "-quiet", *headers, "-O2", str(source)]
        with alive([*command, "-o", "/dev/null"]) as process:
            deadline = time.monotonic() + READY_SECONDS
            while anonymous(process.pid) < size and time.monotonic() < deadline:
                if process.poll() is not None:
                    raise SetupError("the compiler ended before it had enough memory")
                time.sleep(POLL_SECONDS)
            yield process.pid


@contextmanager
def database(size: int) -> Iterator[int]:
    """A Redis server with a record for each line of source."""
    # The package of the server proper starts a service; the tools' one has the same program.
    program = shutil.which("redis-server") or tool("redis-check-rdb", "redis-tools")
    with tempfile.TemporaryDirectory(prefix="preswapd-bench-") as folder:
        address = str(Path(folder) / "socket")
        command = ["redis-server", "--port", "0", "--unixsocket", address, "--save", ""]
        with alive(command, program) as process, connected(address, process) as connection:
            fill(connection, lambda: anonymous(process.pid) >= size)
            yield process.pid


Program = Callable[[int], AbstractContextManager[int]]
# In the order in which they run; each takes the bytes of memory that it should have.
PROGRAMS: Mapping[str, Program] = {
    "Python": python,
    "cc1plus": compiler,
    "Redis": database,
    "Node.js": node,
}


# --- how they run ---


def tool(name: str, package: str) -> str:
    return str(find(name, package))


def said(what: str) -> str:
    """What the compiler's driver prints of itself."""
    command = [tool("g++", "g++"), f"-print-{what}"]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


@contextmanager
def alive(command: list[str], program: str | None = None) -> Iterator["subprocess.Popen[str]"]:
    """`program`: what runs where the command's name for itself is another one."""
    process = subprocess.Popen(
        command,
        executable=program,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    with process:
        try:
            yield process
        finally:
            process.kill()


@contextmanager
def talking(command: list[str]) -> Iterator["subprocess.Popen[str]"]:
    """A program that says "ready"."""
    with alive(command) as process:
        assert process.stdout is not None
        if process.stdout.readline().strip() != "ready":
            raise SetupError(f"{command[0]} ended before it was ready")
        yield process


def anonymous(pid: int) -> int:
    """Bytes of a process's memory that would be swapped; 0 for one that has just ended."""
    return memory_of(pid).get("RssAnon", 0)


# --- Redis ---


@contextmanager
def connected(address: str, process: "subprocess.Popen[str]") -> Iterator[socket.socket]:
    deadline = time.monotonic() + READY_SECONDS
    with socket.socket(socket.AF_UNIX) as connection:
        while True:
            try:
                connection.connect(address)
                break
            except OSError:
                if process.poll() is not None or time.monotonic() > deadline:
                    raise SetupError("Redis does not serve") from None
                time.sleep(POLL_SECONDS)
        yield connection


def fill(connection: socket.socket, full: Callable[[], bool]) -> None:
    """Records until there are enough, the same sources once more where they are too few."""
    replies = connection.makefile("rb")
    source = records()
    while not full():
        batch = list(islice(source, BATCH))
        if not batch:
            raise SetupError("there are not enough sources to fill Redis with")
        connection.sendall(b"".join(request(*record) for record in batch))
        for _ in batch:
            replies.readline()


def records() -> Iterator[tuple[str, ...]]:
    for copy in range(100):
        for path in sorted(STDLIB.rglob("*.py")):
            for number, text in enumerate(path.read_text(errors="replace").splitlines()):
                key = f"line:{copy}:{path.name}:{number}"
                yield "HSET", key, "file", path.name, "number", str(number), "text", text


def request(*words: str) -> bytes:
    """A command as Redis reads it: how many words, then each with its length."""
    encoded = [word.encode(errors="replace") for word in words]
    parts = [b"$%d\r\n%s\r\n" % (len(word), word) for word in encoded]
    return b"*%d\r\n" % len(parts) + b"".join(parts)
