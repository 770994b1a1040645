"""The client's session at work: events in, exact effects out, all redundant state recounted."""

from __future__ import annotations

import random

import pytest

from evener.session import ClientSession
from evener.session_records import (
    Abandon,
    Answered,
    Asked,
    Connected,
    Disconnected,
    Log,
    Reject,
    Reopen,
    Reported,
    Resolve,
    Send,
    State,
    StateChanged,
    Submitted,
)
from evener.submissions import FLIGHTS_MAX
from evener_wire import messages as m
from evener_wire.limits import ACK_DELAY_NS, BATCH_ITEMS_MAX, MILLISECOND_NS, SECOND_NS
from tests.unit.client_bench import INSTANCE, Bench, done, resolved, sent, submits


@pytest.fixture
def bench() -> Bench:
    return Bench()


# --- Beginning ------------------------------------------------------------------------------------


def test_says_hello_once_connected_and_opens_with_the_welcome(bench: Bench) -> None:
    hello = m.Hello(1, 1, "client", INSTANCE, "test", 0, bytes(16), {})
    assert bench.step(Connected()) == [StateChanged(State.GREETING), Send(0, 0, hello)]
    assert bench.welcome() == [StateChanged(State.OPEN)]
    assert bench.session.idle()


def test_repeats_the_hello_each_second_until_the_welcome(bench: Bench) -> None:
    bench.step(Connected())
    assert bench.step(after_ns=SECOND_NS - 1) == []
    assert [type(x) for x in sent(bench.step(after_ns=1))] == [m.Hello]
    bench.welcome()
    assert bench.step(after_ns=SECOND_NS - 1) == []


def test_nothing_is_sent_before_the_welcome(bench: Bench) -> None:
    task = bench.task()
    assert bench.step(Submitted([task])) == []
    assert submits(bench.step(Connected())) == []
    assert bench.welcome() == [
        StateChanged(State.OPEN),
        Send(bench.session_number, 1, m.Submit([task.item])),
    ]


def test_a_refusal_ends_it_with_all_its_tasks(bench: Bench) -> None:
    task, late = bench.tasks(2)
    bench.step(Connected(), Submitted([task]), Asked(1, "status", {}, SECOND_NS))
    effects = bench.hear_outside(m.Refused("protocol", "speaks 2"))
    assert effects == [
        Log("error", "the broker refused the session: speaks 2"),
        StateChanged(State.REFUSED),
        Answered(1, False, None),
        Abandon([task], ("protocol", "speaks 2")),
    ]
    assert bench.step(Submitted([late])) == [Abandon([late], ("protocol", "speaks 2"))]
    assert bench.step(Asked(2, "status", {}, SECOND_NS)) == [Answered(2, False, None)]


def test_a_busy_broker_is_asked_again_later_and_later(bench: Bench) -> None:
    bench.step(Connected())
    for window_s in (1, 2, 4, 8, 16, 30, 30):
        told = bench.hear_outside(m.Refused("busy", "full of sessions"))
        assert any(isinstance(effect, Log) for effect in told) == (window_s == 1), "told once"
        assert bench.session.state is State.GREETING
        assert bench.step(after_ns=window_s * SECOND_NS - 1) == []
        effects = bench.step(after_ns=bench.session.wake_at() - bench.now_ns)
        while not sent(effects):
            effects += bench.step(after_ns=bench.session.wake_at() - bench.now_ns)
        assert [type(x) for x in sent(effects)] == [m.Hello]
        effects += bench.step(after_ns=SECOND_NS // 2)
        assert not any(isinstance(effect, Reopen) for effect in effects)


def test_who_is_told_to_come_later_does_so_on_the_same_connection(bench: Bench) -> None:
    bench.step(Connected())
    assert bench.hear_outside(m.Refused("retry_after", "many come", 2_000)) == []
    assert bench.session.refusal is None
    assert bench.step(after_ns=2 * SECOND_NS - 1) == []
    effects = bench.step(after_ns=SECOND_NS // 2 + 1)
    assert [type(x) for x in sent(effects)] == [m.Hello]
    assert bench.step(after_ns=SECOND_NS - 1) == []
    bench.welcome()
    assert bench.session.state is State.OPEN


def test_within_a_session_a_wait_is_of_a_hello_that_was_repeated(bench: Bench) -> None:
    bench.open()
    assert bench.hear_outside(m.Refused("retry_after", "many come", 400)) == []
    assert bench.session.state is State.OPEN


def test_a_broken_connection_ends_the_wait(bench: Bench) -> None:
    bench.step(Connected())
    bench.hear_outside(m.Refused("busy", "full of sessions"))
    bench.step(Disconnected("connection closed"))
    assert [type(x) for x in sent(bench.step(Connected()))] == [m.Hello]


def test_the_third_violation_in_a_row_is_final(bench: Bench) -> None:
    bench.open()
    for _ in range(2):
        bench.hear_outside(m.Refused("violation", "bad options"))
        assert bench.session.state is State.GREETING
        bench.step(after_ns=SECOND_NS)
        bench.welcome()
    bench.hear_outside(m.Refused("violation", "bad options"))
    assert bench.session.state is State.REFUSED


def test_the_answer_to_a_repeated_hello_replaces_the_session(bench: Bench) -> None:
    bench.open()
    task = bench.task()
    bench.step(Submitted([task]))
    effects = bench.welcome()  # the broker had both HELLOs, and forgot the session of the first
    assert submits(effects) == [([task.item], False)]


# --- Batching -------------------------------------------------------------------------------------


def test_the_first_task_goes_at_once_and_what_gathers_goes_together(bench: Bench) -> None:
    bench.open()
    first, second, third = bench.tasks(3)
    session = bench.session_number
    assert bench.step(Submitted([first])) == [Send(session, 1, m.Submit([first.item]))]
    assert not bench.session.idle()
    assert bench.step(Submitted([second])) == []
    assert bench.step(Submitted([third])) == []
    assert bench.hear(m.Accepted(1)) == [Send(session, 2, m.Submit([second.item, third.item]))]
    assert bench.hear(m.Accepted(2)) == []
    assert bench.session.idle()


def test_full_batches_do_not_wait_up_to_a_window(bench: Bench) -> None:
    bench.open()
    tasks = bench.tasks(BATCH_ITEMS_MAX * (FLIGHTS_MAX + 1) + 1)
    batches = submits(bench.step(Submitted(tasks)))
    assert [len(items) for items, _ in batches] == [BATCH_ITEMS_MAX] * FLIGHTS_MAX
    assert submits(bench.hear(m.Accepted(1))) == [
        ([t.item for t in tasks[-BATCH_ITEMS_MAX - 1 : -1]], False)
    ]
    assert submits(bench.hear(m.Accepted(FLIGHTS_MAX))) == []  # one task alone waits for the rest
    assert submits(bench.hear(m.Accepted(FLIGHTS_MAX + 1))) == [([tasks[-1].item], False)]


def test_batches_are_closed_by_bytes_too(bench: Bench) -> None:
    bench.open()
    tasks = [bench.task(bytes(60_000)) for _ in range(10)]
    batches = submits(bench.step(Submitted(tasks)))
    assert [len(items) for items, _ in batches] == [5, 5]


# --- The ends of tasks ----------------------------------------------------------------------------


def test_a_task_ends_once_however_often_it_is_told(bench: Bench) -> None:
    bench.open()
    task = bench.task()
    bench.step(Submitted([task]))
    terminal = done(task)
    assert bench.hear(terminal, m.Accepted(1)) == [Resolve([(task, terminal.items[0])])]
    assert resolved(bench.hear(terminal)) == []
    assert bench.session.counters == {"terminals_repeated": 1}
    assert sent(bench.step(after_ns=ACK_DELAY_NS)) == [m.Ack(bench.number)]


def test_ends_are_acknowledged_after_a_while_or_when_many_came(bench: Bench) -> None:
    bench.open()
    tasks = bench.tasks(33)
    bench.step(Submitted(tasks))
    acks = [sent(bench.hear(done(task))) for task in tasks]
    assert [x for x in acks if x] == [[m.Ack(33)]]  # the WELCOME was number 1
    assert bench.step(after_ns=ACK_DELAY_NS - 1) == []
    assert sent(bench.step(after_ns=1)) == [m.Ack(34)]
    assert bench.session.wake_at() > bench.now_ns


def test_an_end_may_come_before_the_acceptance(bench: Bench) -> None:
    bench.open()
    task = bench.task()
    bench.step(Submitted([task]))
    assert resolved(bench.hear(done(task))) == [(task, m.TERMINAL_DONE)]
    assert bench.session.idle()  # one that ended was accepted
    first, second = bench.tasks(2)
    bench.step(Submitted([first, second]))
    bench.hear(done(first, second))
    assert not bench.session.idle()
    bench.hear(m.Accepted(2))
    assert bench.session.idle()


def test_a_rejected_task_ends_with_the_reason(bench: Bench) -> None:
    bench.open()
    good, bad = bench.tasks(2)
    bench.step(Submitted([good, bad]))
    reason = "unknown_function"
    effects = bench.hear(m.Rejected([(bad.item[0], reason, "no such")]), m.Accepted(1))
    assert effects == [Reject([(bad, reason, "no such", None)])]
    assert len(bench.session.tasks) == 1


def test_details_belong_to_the_tasks_that_were_rejected(bench: Bench) -> None:
    bench.open()
    first, second, third = bench.tasks(3)
    bench.step(Submitted([first, second, third]))
    told = "unknown_function", "no such"
    items = [(task.item[0], *told) for task in (first, second, third)]
    details: list[m.Facts | None] = [None, {"closest": ("demo.add",)}]
    assert bench.hear(m.Rejected(items, details), m.Accepted(1)) == [
        Reject([(first, *told, None), (second, *told, details[1]), (third, *told, None)])
    ]


# --- A full broker --------------------------------------------------------------------------------


def test_what_a_full_broker_rejects_waits_and_goes_again_first(bench: Bench) -> None:
    bench.open()
    first, second, third = bench.tasks(3)
    bench.step(Submitted([first, second]))
    rejected = m.Rejected([(second.item[0], "queue_full", "full")])
    assert bench.hear(rejected, m.Accepted(1)) == []
    assert bench.step(Submitted([third])) == []  # it would only be rejected, too
    wake_ns = bench.session.wake_at()
    assert bench.now_ns < wake_ns <= bench.now_ns + 20 * MILLISECOND_NS
    effects = bench.step(after_ns=wake_ns - bench.now_ns)
    assert submits(effects) == [([second.item, third.item], False)]


def test_the_pause_grows_while_the_broker_stays_full(bench: Bench) -> None:
    bench.open()
    task = bench.task()
    bench.step(Submitted([task]))
    pauses: list[int] = []
    for number in range(1, 6):
        full = m.Rejected([(task.item[0], "queue_full", "full")])
        bench.hear(full, m.Accepted(number))
        pauses.append(bench.session.wake_at() - bench.now_ns)
        bench.step(after_ns=pauses[-1])
    assert pauses[-1] > 5 * pauses[0]


def test_a_program_may_choose_not_to_wait_for_a_full_broker() -> None:
    session = ClientSession(INSTANCE, "test", {}, random.Random(1), hold_when_full=False)
    bench = Bench(session).open()
    task = bench.task()
    bench.step(Submitted([task]))
    rejected = m.Rejected([(task.item[0], "queue_full", "full")])
    assert bench.hear(rejected, m.Accepted(1)) == [Reject([(task, "queue_full", "full", None)])]


# --- Progress -------------------------------------------------------------------------------------


def test_progress_is_handed_on_and_acknowledged_at_once(bench: Bench) -> None:
    bench.open()
    one, two = bench.tasks(2)
    bench.step(Submitted([one, two]))
    bench.hear(m.Accepted(1), done(two))
    said = m.Progress([(one.item[0], 7, 1, 2, "half"), (two.item[0], 7, 2, 2, "late")])
    effects = bench.hear(said)
    assert [effect for effect in effects if isinstance(effect, Reported)] == [
        Reported([(one, 7, 1, 2, "half")])
    ]
    assert sent(effects) == [m.Ack(bench.number)], "which covers the end told before it, too"
    assert bench.step(after_ns=ACK_DELAY_NS) == []


def test_progress_of_nobodys_task_is_acknowledged_all_the_same(bench: Bench) -> None:
    bench.open()
    effects = bench.hear(m.Progress([(b"?" * 16, 7, 1, 2, "")]))
    assert effects == [Send(bench.session_number, 1, m.Ack(bench.number))]
