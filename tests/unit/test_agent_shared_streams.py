"""Generators side by side in one worker, as their agent sees them: whose value, whose window."""

from __future__ import annotations

from evener_wire import messages as m
from evener_worker import effects as f
from evener_worker import events as e
from tests.agent_harness import key, only, results, sent
from tests.unit.test_agent_shares import Shares, opened


def yielding(*numbers: int) -> Shares:
    """One worker that runs these."""
    bench = opened(1)
    bench.run(*numbers)
    bench.begin(*numbers)
    return bench


def give(bench: Shares, number: int, index: int, value: bytes = b"") -> list[f.Effect]:
    """A task yields, or has no more."""
    sequence = bench.core.ledger.open[key(number)].sequence
    return bench.step(e.Yielded(1, sequence, index, bool(value), value))


def values(effects: list[f.Effect]) -> list[tuple[int, int, m.Payload]]:
    """Number of the task, index and value of each that is told."""
    return [
        (int.from_bytes(task_id, "big"), index, payload)
        for message in sent(effects)
        if type(message) is m.Values
        for task_id, _, index, _, payload in message.items
    ]


def test_each_value_is_told_as_its_own_tasks() -> None:
    bench = yielding(1, 2, 3)
    assert values(give(bench, 3, 0, b"of three")) == [(3, 0, b"of three")]
    assert values(give(bench, 1, 0, b"of one")) == [(1, 0, b"of one")]
    assert values(give(bench, 3, 1, b"again")) == [(3, 1, b"again")]
    bench.core.streams.check()


def test_what_is_taken_of_one_opens_the_window_of_that_one() -> None:
    bench = yielding(1, 2)
    for number in (1, 2):
        give(bench, number, 0, b"x")
    taken = bench.say(m.Taken([(*key(2), 1, False)]))
    assert only(taken, f.Take) == [f.Take(1, bench.core.ledger.open[key(2)].sequence, 1)]
    assert values(bench.say(m.Taken([(*key(1), 0, True)]))) == [(1, 0, b"x")]
    assert values(bench.say(m.Taken([(*key(2), 1, True)]))) == []


def test_one_that_ended_is_forgotten_and_the_others_go_on() -> None:
    bench = yielding(1, 2)
    give(bench, 1, 0, b"x")
    give(bench, 2, 0, b"y")
    sequence = bench.core.ledger.open[key(1)].sequence
    assert results(bench.finish(1, 1)) == [(1, m.DONE)]
    late = bench.step(e.Yielded(1, sequence, 1, True, b"late"))
    assert values(late) == [], "its worker had not noticed that it was stopped"
    assert values(give(bench, 2, 1, b"z")) == [(2, 1, b"z")]


def test_a_new_session_is_told_what_is_not_taken_of_each() -> None:
    bench = yielding(1, 2)
    for index in range(3):
        give(bench, 1, index, b"x")
        give(bench, 2, index, b"y")
    bench.say(m.Taken([(*key(1), 2, False)]))
    bench.step(e.SendFailed())
    bench.step(e.Writable())
    told = values(bench.welcome(session=12))
    assert told == [(1, 2, b"x"), (2, 0, b"y"), (2, 1, b"y"), (2, 2, b"y")]


def test_the_death_of_their_worker_voids_the_values_of_all() -> None:
    bench = opened(1)
    bench.run(1, 2, 3)
    bench.begin(1, 2)
    give(bench, 1, 0, b"x")
    give(bench, 2, 0, b"y")
    assert results(bench.die(1)) == [(1, m.LOST), (2, m.LOST), (3, m.RETURNED)]
    again = bench.say(m.Taken([(*key(1), 0, True), (*key(2), 0, True)]))
    assert values(again) == []
