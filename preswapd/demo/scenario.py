# SPDX-License-Identifier: BSD-3-Clause
"""The demonstration as a list of steps."""

import time
from collections.abc import Callable
from dataclasses import dataclass

from preswapd.demo.material import gather
from preswapd.demo.measured import Figures
from preswapd.demo.server import TemporaryServer, as_a_shell_reads
from preswapd.demo.shared_image import add_image, share_image
from preswapd.demo.stage import Stage
from preswapd.demo.work import (
    CHECK_SECONDS,
    FILES_MIB,
    FILL_SECONDS,
    FOLDER,
    MEMTESTER_MIB,
    ROUND_SECONDS,
    TEXT_MIB,
    Work,
    counted_here,
    find_tools,
    guest_files,
)
from preswapd.guest.faults import SetupError
from preswapd.guest.kernel import find_kernel, given_kernel
from preswapd.guest.machine import Guest, Hardware, Software
from preswapd.guest.memory import memory_leaving
from preswapd.host.meminfo import available_memory
from preswapd.units import exact_size, format_size

# Of its server: on a host of 1 GiB the usual 512 MiB would be all that is left.
HOST_RESERVE = 64 << 20
# What matters of its command, which is long.
SHOWN = ("--pool-size=", "--device=", "--image=")
# What all of it takes beside the pool, guests under emulation most of it: 600 MiB were seen.
GUESTS_MEMORY = 600 << 20
GUEST_LIFE = 600.0
DISCARD_SECONDS = 5.0
SWAPOFF_SECONDS = 120.0
# Sixty times what a restart takes here; QEMU itself would wait for 300.
MOST_STALL = 60.0
# After a shrink to nothing the arena may keep a hundredth of the pool.
LITTLE = 100
SAMPLE_SECONDS = 0.002
# The guest fills the pool again within milliseconds, in which a busy machine may not let us look.
LOOKS = 3
# The page of the swap header, in blocks of the file system.
HEADER_SIZE = 64 * 1024


@dataclass(frozen=True)
class Step:
    """A part of the demonstration, by its title."""

    title: str
    run: Callable[[Stage], None]


def prepare(stage: Stage) -> None:
    screen = stage.screen
    chosen = stage.settings.given_kernel
    check_memory(stage.settings.pool_size)
    stage.tools = find_tools()
    stage.kernel = given_kernel(*chosen) if chosen else find_kernel(stage.cache, screen.live)
    screen.keep_live()
    screen.detail(f"kernel {stage.kernel.image}")
    stage.material = gather(FILES_MIB, TEXT_MIB)
    stage.words_here = counted_here(stage.tools, stage.material.text)
    screen.say(f"{FILES_MIB}M of programs and {TEXT_MIB}M of text from this host as material")


def check_memory(pool_size: int) -> None:
    """Without it pages would go to disk, and the pool would never be full."""
    available = available_memory()
    needed = HOST_RESERVE + pool_size + GUESTS_MEMORY
    if available is not None and available < needed:
        raise SetupError(
            f"programs can get {format_size(available)} of memory here, and the demonstration needs"
            f" {format_size(needed)}"
        )


def start_server(stage: Stage) -> None:
    settings = stage.settings
    server = TemporaryServer(
        settings.pool_size,
        settings.device,
        settings.device_size,
        [f"--host-reserve={exact_size(HOST_RESERVE)}"],
    )
    stage.server = stage.stack.enter_context(server)
    add_image(stage)
    stage.server.start()
    shown = (each for each in stage.server.arguments() if each.startswith(SHOWN))
    stage.screen.command(" ".join(["preswapd serve", *shown]))
    stage.screen.detail(" ".join(stage.server.arguments()))


def boot(stage: Stage) -> None:
    screen, server = stage.screen, stage.server
    disk = server.run("qemu-args", stage.settings.device)
    screen.command(f"preswapctl qemu-args {stage.settings.device}")
    for line in disk.splitlines():
        screen.detail(line)
    material = server.paths.state_dir.parent / "material"
    stage.material.write(material)
    memory = memory_leaving(stage.settings.guest_available, stage.kernel, stage.cache)
    stage.records.guest_memory = memory
    hardware = Hardware(memory, 2, as_a_shell_reads(disk), material)
    software = Software(stage.kernel, stage.tools.all, guest_files(stage.material))
    guest = Guest(hardware, software, stage.cache, life=GUEST_LIFE)
    stage.guest = stage.stack.enter_context(guest)
    stage.work = Work(guest, stage.tools)
    how = "KVM" if guest.accelerator == "kvm" else "emulation, because KVM is not usable"
    left = format_size(guest.meminfo()["MemTotal"])
    screen.say(f"Linux {guest.kernel_version}, {left} of memory left by its kernel, under {how}")


def swapon(stage: Stage) -> None:
    label = stage.settings.device
    area = stage.guest.swapon(label)
    stage.swap_path = area.path
    stage.screen.command(f"swapon --discard LABEL={label}     (in the guest)")
    stage.screen.say(f"{area.path}, {format_size(area.size)}")
    log = stage.guest.run("dmesg | grep 'swap on'").output
    stage.check("SSDsc" in log, f"swapon by LABEL={label}; the guest discards what it frees")
    stage.before_filling = stage.quiet()


def fill(stage: Stage) -> None:
    stage.screen.say(f"{FILES_MIB}M of files into a tmpfs")
    job = stage.work.fill()
    stage.watch(lambda _: job.poll() is not None, FILL_SECONDS, "the files to be copied")
    job.wait(1)
    stage.check_traffic(stage.before_filling, stage.quiet(), "while files were copied")
    stage.check_area("after that")


def overflow(stage: Stage) -> None:
    stage.screen.say(
        f"counting the words of {TEXT_MIB}M of text (sort, uniq), and memtester {MEMTESTER_MIB}M"
    )
    stage.work.start()
    full = stage.watch(
        lambda now: went_to_disk(now) > 0 and now.disk_pages > 1,
        ROUND_SECONDS,
        "the pool to be full",
    )
    stage.check(
        went_to_disk(full) > 0,
        f"the pool of {format_size(stage.settings.pool_size)} was full:"
        f" {full.counters.made_room:,} pages went to disk to make room,"
        f" and {full.counters.rejected:,} new ones that found none",
    )


def went_to_disk(now: Figures) -> int:
    return now.counters.made_room + now.counters.rejected


def settle(stage: Stage, rounds: int) -> None:
    """Goes on until each job has done so many rounds more; what failed shows in the end."""
    work = stage.work
    wanted = {name: done + rounds for name, done in work.rounds().items()}

    def done(_: object) -> bool:
        now = work.rounds()
        return work.failed() or all(now[name] >= count for name, count in wanted.items())

    stage.watch(done, ROUND_SECONDS * rounds, "the guest's work")


def shrink(stage: Stage) -> None:
    for _ in range(LOOKS):
        before = stage.watch(busy(stage), ROUND_SECONDS, "the pool to be in use")
        started = time.monotonic()
        said, lowest = take_all(stage)
        seconds = time.monotonic() - started
        if lowest * LITTLE < stage.settings.pool_size:
            break
    stage.screen.say(f"{said}: {format_size(before.memory - lowest)} in {seconds:.1f} s")
    stage.records.shrink_freed, stage.records.shrink_seconds = before.memory - lowest, seconds
    stage.check(
        said == "vm.preswap = 0" and lowest * LITTLE < stage.settings.pool_size,
        f"while the guest swapped, vm.preswap=0 took {seconds:.1f} s and left"
        f" {format_size(lowest)} of {format_size(before.memory)} ({said})",
    )
    again = stage.watch(busy(stage), ROUND_SECONDS, "the pool to fill again")
    stage.check(
        again.memory > lowest,
        f"after it the pool filled again, to {again.tmem_pages:,} pages"
        f" in {format_size(again.memory)}",
    )


def take_all(stage: Stage) -> tuple[str, int]:
    """What the command says in the end, and the least memory that was in use while it ran."""
    lowest = stage.server.arena_size()
    with stage.server.control("sysctl", "vm.preswap=0") as command:
        stage.screen.command(command.shown)
        while command.running():
            # The guest goes on, so this is over as soon as the command is.
            lowest = min(lowest, stage.server.arena_size())
            time.sleep(SAMPLE_SECONDS)
        return command.wait().strip(), lowest


def busy(stage: Stage) -> Callable[[object], bool]:
    """A third of the pool in use, while the guest's work goes on."""

    def is_busy(_: object) -> bool:
        return stage.look().memory * 3 > stage.settings.pool_size

    return is_busy


def kill(stage: Stage) -> None:
    records, server = stage.records, stage.server
    stage.watch(moving(stage), ROUND_SECONDS, "swap traffic")
    records.end_life(stage.look())
    killed = time.monotonic()
    server.kill()
    stage.screen.command("kill -9 SERVER; preswapd serve ...")
    server.start()
    up = time.monotonic() - killed
    while stage.look().requests == 0 and time.monotonic() < killed + MOST_STALL:
        time.sleep(SAMPLE_SECONDS)
    stall = records.stall_seconds = time.monotonic() - killed
    stage.screen.say(f"the server is back after {up:.1f} s, the guest goes on after {stall:.1f} s")
    stage.check(
        stall < MOST_STALL,
        f"killed with -9 in the middle of its work, the server came back and the guest waited"
        f" {stall:.1f} s",
    )
    settle(stage, 1)


def moving(stage: Stage) -> Callable[[object], bool]:
    """Pages move at this moment."""

    def is_moving(_: object) -> bool:
        before = stage.look().requests
        time.sleep(0.05)
        return stage.look().requests > before

    return is_moving


def finish(stage: Stage) -> None:
    work = stage.work
    work.stop()
    stage.watch(lambda _: work.ended(), ROUND_SECONDS, "the guest's work to end")
    ends = work.outcomes()
    for name, end in ends.items():
        if end.status:
            stage.screen.say(f"{name} ended with status {end.status}: {end.output[-500:]}")
    words = work.results("words")
    stage.check(
        not ends["words"].status and {line.split()[0] for line in words} == {stage.words_here},
        f"the guest counted the words {len(words)} times, each time as the host did",
    )
    passed = work.results("memtester")
    stage.check(
        not ends["memtester"].status and bool(passed),
        f"memtester went {len(passed)} times over its memory and found nothing wrong",
    )


def verify(stage: Stage) -> None:
    before = stage.quiet()
    stage.check_area("with the work done")
    job = stage.work.check_files()
    stage.watch(lambda _: job.poll() is not None, CHECK_SECONDS, "the files to be read")
    good = job.poll()
    stage.check(
        good is not None and good.status == 0 and good.output.count(": OK\n") == FILES_MIB,
        f"all {FILES_MIB}M of the files are what they were, by their SHA-256",
    )
    stage.check_traffic(before, stage.quiet(), "while they were read")


def free_files(stage: Stage) -> None:
    before = stage.look()
    stage.work.drop_files()
    stage.screen.command(f"umount {FOLDER}     (in the guest)")
    # The guest keeps some back: its slot caches hold clusters of 512 pages, of which there are
    # only about ten by now.
    deadline = time.monotonic() + DISCARD_SECONDS
    after = stage.watch(
        lambda now: now.kept * 4 < before.kept or time.monotonic() > deadline,
        DISCARD_SECONDS * 2,
        "the guest's discards",
    )
    freed = max(0, before.memory - after.memory)
    stage.records.discard_freed = freed
    stage.check(
        after.kept * 10 < before.kept * 9,
        f"the guest freed its files, and by its discards {before.kept - after.kept:,} of"
        f" {before.kept:,} pages went away here too, {format_size(freed)} of memory among them",
    )


def swapoff(stage: Stage) -> None:
    name, server = stage.settings.device, stage.server
    stage.screen.command(f"swapoff {stage.swap_path}     (in the guest)")
    stage.guest.swapoff(stage.swap_path, SWAPOFF_SECONDS)
    stage.screen.command(f"preswapctl swapoff {name} --yes")
    stage.screen.say(server.run("swapoff", name, "--yes").strip())
    now = stage.look()
    memory, disk = server.arena_size(), server.disk_file_size(name)
    stage.records.note(now, 0)
    stage.check(
        stage.guest.swaps() == []
        and now.kept <= 1
        and memory * LITTLE < stage.settings.pool_size
        and disk <= HEADER_SIZE,
        "after swapoff on both sides nothing is left but the swap header:"
        f" {format_size(memory)} of memory, {format_size(disk)} of disk",
    )


def conclude(stage: Stage) -> None:
    guest, total = stage.guest, stage.records.total
    troubles, stops = guest.troubles(), guest.stops()
    for line in [*troubles, *map(str, stops)]:
        stage.screen.say(line)
    stage.check(
        not troubles and not stops, "neither the guest's kernel nor QEMU saw an error of the disk"
    )
    stage.check(
        not total.disk_errors and not total.checksum_errors,
        f"of {total.written:,} pages written and {total.read:,} read, none was damaged or lost",
    )


STEPS = [
    Step("Preparing", prepare),
    Step("A server with a small pool", start_server),
    Step("A guest with too little memory", boot),
    Step("Its swap disk", swapon),
    Step("More files than memory", fill),
    Step("Work until the pool overflows", overflow),
    Step("The host takes its memory back while the guest swaps", shrink),
    Step("The server dies while the guest swaps", kill),
    Step("The work ends", finish),
    Step("Every byte is compared", verify),
    Step("The guest frees memory", free_files),
    Step("The disk is turned off", swapoff),
    Step("Two more guests read one disk image", share_image),
    Step("Looking back", conclude),
]
