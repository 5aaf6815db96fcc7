# SPDX-License-Identifier: BSD-3-Clause
"""What the stores of other tests hold after a kill is what those tests say."""

from pathlib import Path

import pytest

from tests.remote.stores import StoreServer, needs_store
from tests.running import wait_until

pytestmark = needs_store


@pytest.mark.parametrize("with_file", [False, True])
def test_who_was_a_replica_comes_back_with_its_file_or_with_nothing(
    tmp_path: Path, with_file: bool
) -> None:
    with StoreServer(tmp_path / "master") as master, StoreServer(tmp_path / "replica") as replica:
        master("SET", "key", "value")
        replica("REPLICAOF", master.host, master.port)
        wait_until(lambda: replica("DBSIZE") == 1, "the replica to have it")
        replica.kill()
        replica.launch(with_file=with_file)
        wait_until(replica.is_there, "it to come back")
        assert replica("DBSIZE") == with_file
