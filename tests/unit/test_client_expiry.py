"""A total deadline holds at the caller, also while no broker is there that could keep it."""

from __future__ import annotations

import pytest

from evener.deadlines import NEVER
from evener.expiry import GRACE_NS
from evener.session_records import (
    Abandon,
    CloseAsked,
    Connected,
    Disconnected,
    Resolve,
    Submitted,
)
from evener_wire import messages as m
from evener_wire.limits import MILLISECOND_NS, SECOND_NS
from tests.unit.client_bench import OTHER_BROKER, Bench, Task, done, resolved, sent, submits

DEADLINE_NS = 3 * SECOND_NS


@pytest.fixture
def bench() -> Bench:
    return Bench()


def limited(bench: Bench, deadline_ns: int = DEADLINE_NS) -> Task:
    task_id, function, payload, _ = bench.task().item
    options = m.Options(deadline_ms=deadline_ns // MILLISECOND_NS)
    return Task((task_id, function, payload, options))


def test_ends_as_expired_when_no_broker_says_anything(bench: Bench) -> None:
    task, free = limited(bench), bench.task()
    bench.step(Submitted([task, free]))
    assert resolved(bench.step(after_ns=DEADLINE_NS + GRACE_NS - 1)) == []
    effects = bench.step(after_ns=1)
    facts = {"limit": "total", "ms": 3_000, "told_by": "client"}
    assert Resolve([(task, (task.item[0], m.TERMINAL_EXPIRED, b"", facts))]) in effects
    assert len(bench.session.tasks) == 1
    bench.step(Connected())
    assert submits(bench.welcome()) == [([free.item], False)]


def test_the_broker_has_the_first_word(bench: Bench) -> None:
    bench.open()
    early, late = limited(bench), limited(bench)
    bench.step(Submitted([early, late]))
    bench.hear(m.Accepted(2))
    assert resolved(bench.hear(done(early))) == [(early, m.TERMINAL_DONE)]
    bench.now_ns += DEADLINE_NS + GRACE_NS
    # What came in the meantime counts before the time that has passed.
    assert resolved(bench.hear(done(late))) == [(late, m.TERMINAL_DONE)]
    assert bench.session.counters.get("expired_here") is None


def test_a_task_on_its_way_is_not_sent_again(bench: Bench) -> None:
    bench.open()
    first, second = limited(bench), limited(bench, 2 * DEADLINE_NS)
    bench.step(Submitted([first]))
    bench.step(Submitted([second]))
    bench.step(Disconnected("gone"))
    assert resolved(bench.step(after_ns=DEADLINE_NS + GRACE_NS)) == [(first, m.TERMINAL_EXPIRED)]
    bench.step(Connected())
    assert submits(bench.welcome(OTHER_BROKER)) == [([second.item], False)]


def test_an_end_that_comes_afterwards_is_no_news(bench: Bench) -> None:
    bench.open()
    task = limited(bench)
    bench.step(Submitted([task]))
    bench.hear(m.Accepted(2))
    bench.step(Disconnected("gone"))
    assert resolved(bench.step(after_ns=DEADLINE_NS + GRACE_NS)) == [(task, m.TERMINAL_EXPIRED)]
    bench.step(Connected())
    bench.welcome()
    assert resolved(bench.hear(done(task))) == []
    assert bench.session.counters["terminals_repeated"] == 1


def test_a_task_that_waits_for_room_ends_in_time(bench: Bench) -> None:
    bench.open()
    task = limited(bench)
    bench.step(Submitted([task]))
    bench.hear(m.Rejected([(task.item[0], "queue_full", "full")]), m.Accepted(2))
    ends = []
    for _ in range(6):
        ends += resolved(bench.step(after_ns=SECOND_NS))
        bench.hear(m.Heartbeat())
    assert ends == [(task, m.TERMINAL_EXPIRED)]
    assert not len(bench.session.tasks)


def test_each_deadline_in_its_turn(bench: Bench) -> None:
    later, sooner = limited(bench, 5 * SECOND_NS), limited(bench, SECOND_NS)
    bench.step(Submitted([later]))
    bench.step(Submitted([sooner]))
    assert resolved(bench.step(after_ns=SECOND_NS + GRACE_NS)) == [(sooner, m.TERMINAL_EXPIRED)]
    assert resolved(bench.step(after_ns=4 * SECOND_NS)) == [(later, m.TERMINAL_EXPIRED)]


def test_what_has_ended_is_not_remembered_for_ever(bench: Bench) -> None:
    bench.open()
    for _ in range(3_000):
        task = limited(bench, 3_600 * SECOND_NS)
        bench.step(Submitted([task]))
        bench.hear(done(task))
    assert len(bench.session._work._expiry._heap) < 1_100


def test_nothing_is_kept_of_tasks_without_a_deadline(bench: Bench) -> None:
    bench.step(Submitted(bench.tasks(10)))
    assert bench.session._work._expiry.next_at() == NEVER


def test_the_end_of_the_session_is_the_end_of_them_all(bench: Bench) -> None:
    task = limited(bench)
    bench.step(Submitted([task]))
    effects = bench.step(CloseAsked(0))
    assert Abandon([task], None) in effects
    assert bench.step(after_ns=DEADLINE_NS + GRACE_NS) == []
    assert sent(effects) == []
