# SPDX-License-Identifier: BSD-3-Clause
"""What systemd says of a unit, where it is this host's first process."""

import subprocess
from pathlib import Path

# sd_booted(3).
BOOTED = Path("/run/systemd/system")
ANSWER_SECONDS = 5.0


def properties(unit: str, *names: str) -> dict[str, str]:
    """The unit's properties; empty where there is no systemd, or it does not answer."""
    if not BOOTED.is_dir():
        return {}
    command = ["systemctl", "show", f"--property={','.join(names)}", "--", unit]
    try:
        done = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=ANSWER_SECONDS,
            check=True,
        )
    except (OSError, subprocess.SubprocessError):
        return {}
    assignments = (line.partition("=") for line in done.stdout.splitlines())
    return {name: value for name, _, value in assignments if name in names}
