# SPDX-License-Identifier: BSD-3-Clause
"""Certificates for a server and its clients on this host, good for a day."""

import subprocess
from pathlib import Path

KEY = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "1")
PLACE = "subjectAltName=IP:127.0.0.1"


def make_keys(folder: Path) -> Path:
    """What both ends look for, in one directory."""
    own = ("-keyout", f"{folder}/ca-key.pem", "-out", f"{folder}/ca-cert.pem")
    request(*KEY, *own, "-subj", "/CN=bench")
    by = ("-CA", f"{folder}/ca-cert.pem", "-CAkey", f"{folder}/ca-key.pem")
    leaf = ("-addext", "basicConstraints=critical,CA:FALSE", "-addext", PLACE)
    for kind in ("server", "client"):
        files = ("-keyout", f"{folder}/{kind}-key.pem", "-out", f"{folder}/{kind}-cert.pem")
        request(*KEY, *files, *by, *leaf, "-subj", f"/CN={kind}")
    return folder


def request(*arguments: str) -> None:
    subprocess.run(["openssl", "req", "-x509", *arguments], check=True, capture_output=True)
