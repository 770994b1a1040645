"""Whatever one peer does as fast as it can, another client goes on, and the broker stays small."""

from __future__ import annotations

import pytest

from evener_wire.limits import MIB
from tests.backpressure.stage import CEILING, Stage

# Attacks that leave nothing behind: what the broker counts of each.
FLOODS = {
    "cancels": "cancels_stale",
    "heartbeats": "",
    "duplicates": "",
    "queries": "",
    "unread_queries": "questions_refused",
    "garbage": "messages_malformed",
    "hellos": "sessions_deferred",
    "agents": "sessions_deferred",
}


def test_floods_of_small_things(stage: Stage) -> None:
    stage.start()
    for kind, counter in FLOODS.items():
        assert stage.compare(kind) < CEILING, kind
        stage.wait_for_leaving()
        assert not counter or stage.counter(counter) > 0, kind


@pytest.mark.parametrize("kind", ["submits", "large", "frames", "unread"])
def test_floods_of_work(stage: Stage, kind: str) -> None:
    """The workers are busy with it, and the good client waits for its turns there: no longer."""
    stage.start()
    assert stage.compare(kind) < CEILING
    stage.wait_for_leaving()


def test_connections_that_come_and_go(stage: Stage) -> None:
    """T19. Each leaves results that nobody reads; those are kept, and counted."""
    stage.start(max_bytes=512 * MIB)
    assert stage.compare("churn") < CEILING + 416 * MIB
    stage.wait_for_leaving()
    taken = sum(row["payload_bytes"] for row in _clients(stage))
    assert taken == stage.status()["broker"]["payload_bytes"]


def _clients(stage: Stage) -> list[dict[str, int]]:
    rows: list[dict[str, int]] = stage.good.query("ls", kind="clients", limit=1_000)["rows"]
    return rows
