"""A crowd on real sockets over the deaths of its broker. The full size is run by hand:
`python -m tests.recovery --agents 1000 --clients 200`."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.recovery.books import Books
from tests.recovery.run import Plan, recover
from tests.support import Processes


@pytest.mark.slow
def test_a_crowd_outlives_its_brokers(processes: Processes, tmp_path: Path) -> None:
    plan = Plan(agents=100, clients=20, tasks=30, most_ms=600, kills=2, between_s=0.5, seed=1)
    outcome = recover(plan, processes, tmp_path)
    assert outcome.faults() == []
    assert outcome.counters["sessions_opened"] >= 3 * 120
    assert outcome.counters["attempts_adopted"] > 0, "no broker was killed under load"


@pytest.mark.slow
def test_a_crowd_that_is_put_off_comes_in_all_the_same(
    processes: Processes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A broker that takes in few at once: everybody has its turn, and nothing is lost meanwhile."""
    folder = tmp_path / "slow"
    folder.mkdir()
    (folder / "sitecustomize.py").write_text(
        "import evener_wire.limits as limits\n"
        "limits.HELLOS_AT_ONCE, limits.HELLOS_PER_SECOND = 10, 100\n"
    )
    path = os.pathsep.join([str(folder), os.environ.get("PYTHONPATH", "")])
    slow = Processes({**processes.environment, "PYTHONPATH": path})
    try:
        plan = Plan(agents=100, clients=20, tasks=10, most_ms=600, kills=1, between_s=0.5, seed=2)
        outcome = recover(plan, slow, tmp_path)
    finally:
        slow.close()
    assert outcome.faults() == []
    assert outcome.counters["sessions_deferred"] > 100
    assert outcome.counters["agents_lost"] == 0


def test_the_books_see_what_must_not_be() -> None:
    books = Books(submitted=4)
    first = books.begin(b"1", 1, 10)
    books.begin(b"1", 2, 20)
    assert books.overlaps == 1
    first.ended_ns = 30
    books.end(b"1", right=True)
    assert books.wrong == []
    books.end(b"1", right=True)
    books.end(b"2", right=True)
    ended = books.begin(b"3", 1, 10)
    ended.ended_ns = 20
    books.end(b"3", right=False)
    books.begin(b"3", 1, 30)
    assert books.again == 1
    assert [text.partition(": ")[2] for text in books.wrong] == [
        "2 ends",
        "an end without a run",
        "an end that is not its result",
    ]
