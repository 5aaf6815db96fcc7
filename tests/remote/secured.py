# SPDX-License-Identifier: BSD-3-Clause
"""A real store that speaks TLS only, and wants a certificate of its clients."""

from pathlib import Path

from tests.ports import free_port
from tests.remote.stores import StoreServer
from tests.tls import Authority


class SecuredStore(StoreServer):
    """Its own certificate is for localhost."""

    def __init__(self, folder: Path, authority: Authority, *options: str) -> None:
        keys = authority.sign(folder / "keys", "server")
        port = free_port()
        super().__init__(
            folder,
            *("--port", "0", "--tls-port", str(port)),
            *("--tls-cert-file", str(keys / "server-cert.pem")),
            *("--tls-key-file", str(keys / "server-key.pem")),
            *("--tls-ca-cert-file", str(keys / "ca-cert.pem")),
            *options,
            port=port,
        )

    @property
    def url(self) -> str:
        return f"rediss://localhost:{self.port}"


def client_keys(authority: Authority, folder: Path) -> dict[str, str]:
    """What [remote] says of them; all are signed by that authority."""
    keys = authority.sign(folder, "client")
    return {
        "ca": str(keys / "ca-cert.pem"),
        "cert": str(keys / "client-cert.pem"),
        "key": str(keys / "client-key.pem"),
    }
