"""Brokers without a journal, real processes: what one notes, the next one on its port relies on."""

from __future__ import annotations

import os
from pathlib import Path

from evener_broker.roster_file import RosterFile
from tests.integration import fault_app as app
from tests.integration.fault_cluster import FaultCluster
from tests.support import wait_until


def noted(cluster: FaultCluster, tmp_path: Path) -> set[bytes]:
    """The agents that the broker of now noted. Reads a copy, as reading it begins another one."""
    name = f"agents-127.0.0.1-{cluster.port}"
    copy = tmp_path / "copy"
    copy.write_bytes((Path(os.environ["EVENER_RUNTIME_DIR"]) / name).read_bytes())
    file = RosterFile(copy, bytes(16))
    file.close()
    assert file.before is not None
    return set(file.before.agents)


def test_a_broker_knows_the_agents_of_the_one_before_it(
    cluster: FaultCluster, tmp_path: Path
) -> None:
    client = cluster.start(agents=2)
    both = noted(cluster, tmp_path)
    assert len(both) == 2
    running = client.submit(app.stay, "runs", "go")
    cluster.wait_begun("runs")
    for number in range(3):
        cluster.broker.kill()
        cluster.start_broker()
        assert client.submit(app.work, f"new{number}").result(20) == f"new{number}"
        wait_until(lambda: cluster.slots(client) == 2, 20, "both agents")
        assert noted(cluster, tmp_path) == both, "the same agents, in the notes of another broker"
    cluster.release("go")
    assert running.result(20) == "runs"
    assert cluster.history.order().count("runs") == 1
    cluster.agents[0].process.terminate()
    wait_until(lambda: len(noted(cluster, tmp_path)) == 1, 20, "the one that left to be struck out")
