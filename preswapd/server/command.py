"""The command `preswapd serve` and its options."""

from pathlib import Path

import click

from preswapd.codecs import COMPRESS
from preswapd.commandline import DIRECTORY, FILE, INSTANCE, SIZE, Reader
from preswapd.preswap.settings import DeviceSpec
from preswapd.server.config import keys as values
from preswapd.server.config import merged as config
from preswapd.server.config.shown import as_toml
from preswapd.server.serve import serve


@click.command("serve")
@click.option(
    "--config",
    "config_file",
    type=FILE,
    help="Configuration file, with its drop-ins FILE.d/*.toml. Default:"
    " /etc/preswapd/INSTANCE.toml, where it exists.",
)
@click.option("--instance", type=INSTANCE, help="The instance's name. Default: default.")
@click.option("--runtime-dir", type=DIRECTORY, help="Directory of the sockets.")
@click.option("--shm-dir", type=DIRECTORY, help="Directory of the pages, on a tmpfs.")
@click.option("--state-dir", type=DIRECTORY, help="Directory of the disk files.")
@click.option(
    "--pool-size",
    type=Reader("size", values.pool_size),
    help="The most host memory that pages may take, at least 4M. Required.",
)
@click.option(
    "--device",
    "devices",
    multiple=True,
    type=Reader("name=size", values.device),
    help="A swap device; may be given several times.",
)
@click.option("--compress", type=click.Choice(COMPRESS), help="Codec. Default: lz4.")
@click.option(
    "--threads",
    type=Reader("n", lambda text: values.threads(values.number(text))),
    help="Worker threads a connection. Default: 16, or 1 where nbdkit is older than 1.33.10.",
)
@click.option(
    "--listen",
    type=Reader("addr:port", values.listen),
    help="Serve NBD over TCP too, on a loopback address.",
)
@click.option(
    "--host-reserve",
    type=SIZE,
    help="Free memory that is left to the host. Default: 5 % of all, at least 512M.",
)
@click.option(
    "--discard-state",
    is_flag=True,
    help="Start empty: throws away all pages in memory and on disk.",
)
@click.option(
    "--show-config",
    is_flag=True,
    help="Print what is in force and where it was said, and do nothing.",
)
def serve_command(
    config_file: Path | None,
    instance: str | None,
    runtime_dir: Path | None,
    shm_dir: Path | None,
    state_dir: Path | None,
    pool_size: int | None,
    devices: tuple[DeviceSpec, ...],
    compress: str | None,
    threads: int | None,
    listen: str | None,
    host_reserve: int | None,
    discard_state: bool,
    show_config: bool,
) -> None:
    """Serve swap disks, in the foreground, until SIGTERM or SIGINT.

    One line that begins with "ready" on stderr says that clients can connect.

    \b
    Exit status: 0 stopped by a signal, 1 failed, 2 usage or a bad configuration,
    4 refused (in use, pages lost or of another version, disk file missing or changed).

    \b
    Example:
      preswapd serve --instance vm1 --pool-size 2G --device swap0=8G
    """
    options = config.Options(
        config=config_file,
        instance=instance,
        runtime_dir=runtime_dir,
        shm_dir=shm_dir,
        state_dir=state_dir,
        pool_size=pool_size,
        host_reserve=host_reserve,
        devices=devices,
        compress=compress,
        threads=threads,
        listen=listen,
        discard_state=discard_state,
    )
    loaded = config.load(options)
    if show_config:
        click.echo(as_toml(loaded), nl=False)
    else:
        serve(loaded)
