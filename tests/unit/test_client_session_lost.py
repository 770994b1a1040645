"""The client's session when connections, brokers and messages are lost; and its end."""

from __future__ import annotations

import random

import pytest

from evener.session_records import (
    Abandon,
    Answered,
    Asked,
    CancelAsked,
    CloseAsked,
    Connected,
    Disconnected,
    Effect,
    Log,
    Malformed,
    Received,
    Reopen,
    Resolve,
    Send,
    State,
    StateChanged,
    Submitted,
)
from evener.submissions import FLIGHTS_MAX
from evener_wire import messages as m
from evener_wire.codec import Envelope
from evener_wire.limits import BATCH_ITEMS_MAX, MILLISECOND_NS, SECOND_NS
from tests.unit.client_bench import (
    BROKER,
    OTHER_BROKER,
    Bench,
    Task,
    done,
    resolved,
    sent,
    submits,
    welcome,
)


@pytest.fixture
def bench() -> Bench:
    return Bench()


# --- Lost and found -------------------------------------------------------------------------------


def test_same_broker_gets_again_only_what_it_has_not_accepted(bench: Bench) -> None:
    bench.open()
    accepted, flying, waiting = bench.tasks(3)
    bench.step(Submitted([accepted]))
    bench.hear(m.Accepted(1))
    bench.step(Submitted([flying]))
    bench.step(Submitted([waiting]))
    effects = bench.step(Disconnected("connection closed"))
    assert effects == [
        Log("warning", "lost the broker (connection closed), with 3 open tasks"),
        StateChanged(State.CONNECTING),
    ]
    hello = sent(bench.step(Connected(), after_ns=2 * SECOND_NS))[0]
    assert isinstance(hello, m.Hello)
    assert (hello.epoch, hello.broker) == (5, BROKER)
    effects = bench.welcome()
    assert submits(effects) == [([flying.item, waiting.item], False)]
    assert effects[1] == Log("warning", "connected to the broker again after 2.0 s")


def test_a_restarted_broker_gets_everything_again_in_order(bench: Bench) -> None:
    bench.open()
    accepted, flying, waiting = bench.tasks(3)
    bench.step(Submitted([accepted]))
    bench.hear(m.Accepted(1))
    bench.step(Submitted([flying]))
    bench.step(Submitted([waiting]))
    bench.step(Disconnected("connection closed"))
    bench.step(Connected())
    effects = bench.welcome(OTHER_BROKER, 6)
    assert submits(effects) == [([accepted.item, flying.item], True)]
    assert submits(bench.hear(m.Accepted(1))) == [([waiting.item], False)]


def test_a_broker_that_restarts_twice_gets_it_as_seen_both_times(bench: Bench) -> None:
    bench.open()
    tasks = bench.tasks(BATCH_ITEMS_MAX * (FLIGHTS_MAX + 2))
    bench.step(Submitted(tasks))
    for number in range(1, FLIGHTS_MAX + 3):
        bench.hear(m.Accepted(number))
    for broker in (OTHER_BROKER, BROKER):
        bench.step(Disconnected("gone"))
        bench.step(Connected())
        batches = submits(bench.welcome(broker))
        assert all(again for _, again in batches)
        assert batches[0][0][0] == tasks[0].item
    assert len(bench.session.tasks) == len(tasks)


def test_what_ended_while_it_waited_is_not_sent_again(bench: Bench) -> None:
    bench.open()
    tasks = bench.tasks(BATCH_ITEMS_MAX * FLIGHTS_MAX)
    blocker, ended = bench.tasks(2)
    bench.step(Submitted([*tasks, blocker]))
    bench.step(Submitted([ended]))
    # All went but the last two; after a reconnection everything waits, and the broker, which had
    # accepted and finished some, tells their ends first.
    bench.step(Disconnected("gone"))
    bench.step(Connected())
    bench.session_number += 1
    bench.number = 0
    effects = bench.hear(welcome(), done(*tasks[:10]))
    first = submits(effects)[0][0]
    assert first[0] == tasks[10].item
    assert len(first) == BATCH_ITEMS_MAX


def test_resync_begins_a_new_session_on_the_same_connection(bench: Bench) -> None:
    bench.open()
    task = bench.task()
    bench.step(Submitted([task]))
    effects = bench.step(
        Received(Envelope(0, 0, m.Resync("unknown session"))),
        Received(Envelope(0, 0, m.Resync("unknown session"))),
        after_ns=SECOND_NS // 2,
    )
    assert [type(x) for x in sent(effects)] == [m.Hello]  # one, however many RESYNCs
    assert submits(bench.welcome()) == [([task.item], False)]


def test_resync_in_a_circle_is_slowed_down(bench: Bench) -> None:
    bench.open()
    hellos = 0
    for _ in range(100):
        hellos += len(sent(bench.hear_outside(m.Resync("unknown session"))))
        hellos += len(sent(bench.step(after_ns=10 * MILLISECOND_NS)))
        if bench.session.state is State.GREETING:
            bench.welcome()
    assert hellos <= 11


def test_a_gap_in_the_numbers_begins_a_new_session(bench: Bench) -> None:
    bench.open()
    bench.now_ns += SECOND_NS // 2
    lost = Received(Envelope(bench.session_number, 3, m.Heartbeat()))
    assert [type(x) for x in sent(bench.step(lost))] == [m.Hello]
    assert bench.session.counters == {"out_of_step": 1}


def test_repeated_and_old_messages_change_nothing(bench: Bench) -> None:
    bench.open()
    task = bench.task()
    bench.step(Submitted([task]))
    repeated = Received(Envelope(bench.session_number, 1, done(task)))
    foreign = Received(Envelope(5, 2, done(task)))
    assert bench.step(repeated, foreign) == []
    assert bench.session.counters == {"messages_of_old_session": 2}


def test_garbage_begins_a_new_session(bench: Bench) -> None:
    bench.open()
    bench.now_ns += SECOND_NS // 2
    effects = bench.step(Malformed("head is not msgpack"))
    assert [type(x) for x in sent(effects)] == [m.Hello]


def test_messages_of_agents_are_garbage_to_a_client(bench: Bench) -> None:
    bench.open()
    bench.now_ns += SECOND_NS // 2
    assert [type(x) for x in sent(bench.hear(m.Run([])))] == [m.Hello]


def test_silence_opens_another_connection(bench: Bench) -> None:
    bench.open()
    bench.step(after_ns=2 * SECOND_NS)
    bench.hear(m.Heartbeat())
    effects = bench.step(after_ns=4 * SECOND_NS - 1)
    assert not any(isinstance(effect, Reopen) for effect in effects)
    assert bench.step(after_ns=1)[-3:] == [
        Log("warning", "lost the broker (silent)"),
        StateChanged(State.CONNECTING),
        Reopen(1 * SECOND_NS),
    ]
    # And again, while nothing answers, within a window that grows up to a bound.
    assert Reopen(2 * SECOND_NS) in bench.step(after_ns=4 * SECOND_NS)
    assert Reopen(2 * SECOND_NS) in bench.step(after_ns=4 * SECOND_NS)


def test_what_was_read_late_counts_before_the_silence(bench: Bench) -> None:
    bench.open()
    beat = Received(Envelope(bench.session_number, 2, m.Heartbeat()))
    effects = bench.step(beat, after_ns=60 * SECOND_NS)
    assert not any(isinstance(effect, Reopen) for effect in effects)


def test_says_that_it_lives_only_when_it_said_nothing_else(bench: Bench) -> None:
    bench.open()
    bench.step(after_ns=SECOND_NS - 1)
    task = bench.task()
    bench.step(Submitted([task]))
    assert bench.step(after_ns=SECOND_NS - 1) == []
    assert sent(bench.step(after_ns=1)) == [m.Heartbeat()]


def test_a_broker_that_says_goodbye_is_greeted_a_second_later(bench: Bench) -> None:
    bench.open()
    bench.hear(m.Goodbye("stopping"))
    assert bench.session.state is State.CONNECTING
    assert sent(bench.step(Connected())) == []
    assert [type(x) for x in sent(bench.step(after_ns=SECOND_NS))] == [m.Hello]


# --- Cancel ---------------------------------------------------------------------------------------


def test_cancel_of_what_no_broker_has_needs_no_broker(bench: Bench) -> None:
    task, other = bench.tasks(2)
    bench.step(Submitted([task, other]))
    assert resolved(bench.step(CancelAsked([task.item[0]]))) == [(task, m.TERMINAL_CANCELLED)]
    bench.step(Connected())
    assert submits(bench.welcome()) == [([other.item], False)]


def test_cancel_is_asked_of_the_broker_and_asked_again_in_a_new_session(bench: Bench) -> None:
    bench.open()
    task = bench.task()
    bench.step(Submitted([task]))
    bench.hear(m.Accepted(1))
    cancel = m.Cancel([(task.item[0], 0)])
    assert sent(bench.step(CancelAsked([task.item[0]]))) == [cancel]
    bench.step(Disconnected("gone"))
    bench.step(Connected())
    assert sent(bench.welcome(OTHER_BROKER)) == [m.Submit([task.item], True), cancel]
    bench.hear(m.Terminal([(task.item[0], m.TERMINAL_CANCELLED, b"", None)]))
    assert len(bench.session.tasks) == 0


def test_tasks_of_other_clients_can_be_cancelled(bench: Bench) -> None:
    bench.open()
    assert sent(bench.step(CancelAsked([b"z" * 16]))) == [m.Cancel([(b"z" * 16, 0)])]


# --- Questions ------------------------------------------------------------------------------------


def test_a_question_has_one_answer(bench: Bench) -> None:
    bench.open()
    query = m.Query(9, "ls", {"kind": "tasks"})
    assert sent(bench.step(Asked(9, "ls", {"kind": "tasks"}, SECOND_NS))) == [query]
    assert bench.hear(m.Answer(9, True, b"\x90")) == [Answered(9, True, b"\x90")]
    assert bench.hear(m.Answer(9, True, b"\x90")) == []


def test_a_question_is_asked_again_in_a_new_session_and_ends_in_time(bench: Bench) -> None:
    bench.step(Asked(1, "status", {}, 3 * SECOND_NS))
    bench.step(Connected())
    assert sent(bench.welcome()) == [m.Query(1, "status", {})]
    bench.step(Disconnected("gone"))
    bench.step(Connected())
    assert sent(bench.welcome()) == [m.Query(1, "status", {})]
    assert Answered(1, False, None) in bench.step(after_ns=3 * SECOND_NS)


def test_notices_are_for_the_log(bench: Bench) -> None:
    bench.open()
    text = '120 tasks wait for queue "gpu" but no connected worker serves it'
    assert bench.hear(m.Notice("another", text)) == [Log("warning", text)]
    (told,) = bench.hear(m.Notice("unserved_queue", text))
    assert isinstance(told, Log)
    assert told.text.startswith(f"{text}; start such a worker, or bound the wait with the option ")


# --- The end --------------------------------------------------------------------------------------


def test_closing_waits_until_the_broker_has_everything(bench: Bench) -> None:
    bench.open()
    task = bench.task()
    bench.step(Submitted([task]))
    assert bench.step(CloseAsked(SECOND_NS)) == []
    assert bench.hear(m.Accepted(1)) == [
        Send(bench.session_number, 2, m.Goodbye("closed")),
        StateChanged(State.CLOSED),
        Abandon([task], None),
    ]
    assert bench.step(Submitted([task])) == [Abandon([task], None)]


def test_closing_does_not_wait_for_ever(bench: Bench) -> None:
    task = bench.task()
    bench.step(Submitted([task]))
    assert bench.step(CloseAsked(SECOND_NS)) == []
    assert bench.step(after_ns=SECOND_NS) == [StateChanged(State.CLOSED), Abandon([task], None)]


def test_the_last_ends_are_acknowledged_before_leaving(bench: Bench) -> None:
    bench.open()
    task = bench.task()
    bench.step(Submitted([task]))
    bench.hear(m.Accepted(1), done(task))
    assert sent(bench.step(CloseAsked(SECOND_NS))) == [m.Ack(3), m.Goodbye("closed")]


# --- All at once ----------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(30))
def test_under_any_order_of_events_every_task_ends_once(seed: int) -> None:
    """A broker restarts, loses connections, repeats itself; the program submits and cancels."""
    rng = random.Random(seed)
    bench = Bench()
    ended: dict[object, int] = {}
    submitted: list[Task] = []
    held: dict[bytes, Task] = {}  # what the broker has accepted

    def note(effects: list[Effect]) -> None:
        for effect in effects:
            if isinstance(effect, Resolve):
                for ticket, _ in effect.endings:
                    ended[ticket] = ended.get(ticket, 0) + 1
            elif isinstance(effect, Send) and isinstance(effect.message, m.Submit):
                flying.append((effect.number, [item[0] for item in effect.message.items]))

    flying: list[tuple[int, list[bytes]]] = []
    broker = BROKER

    def connect() -> None:
        flying.clear()
        note(bench.step(Connected()))
        note(bench.welcome(broker))

    connect()
    for _ in range(300):
        choice = rng.randrange(8)
        if choice <= 2:
            tasks = bench.tasks(rng.choice((1, 1, 3, 50)))
            submitted += tasks
            note(bench.step(Submitted(tasks)))
        elif choice == 3 and flying:
            number, ids = flying.pop(0)
            held.update((t.item[0], t) for t in submitted if t.item[0] in set(ids))
            note(bench.hear(m.Accepted(number)))
        elif choice == 4 and held:
            tasks = rng.sample(list(held.values()), min(len(held), 20))
            for task in tasks if rng.random() < 0.8 else []:
                del held[task.item[0]]
            note(bench.hear(done(*tasks)))
        elif choice == 5 and rng.random() < 0.3:
            if rng.random() < 0.5:
                broker = OTHER_BROKER if broker == BROKER else BROKER
                held.clear()
            note(bench.step(Disconnected("gone")))
            connect()
        elif choice == 6 and submitted:
            note(bench.step(CancelAsked([rng.choice(submitted).item[0]])))
        else:
            note(bench.step(after_ns=rng.randrange(100) * MILLISECOND_NS))
    while len(bench.session.tasks):
        if flying:
            number, ids = flying.pop(0)
            held.update((t.item[0], t) for t in submitted if t.item[0] in set(ids))
            note(bench.hear(m.Accepted(number)))
        note(bench.hear(done(*held.values())))
        held.clear()
    assert ended == dict.fromkeys(submitted, 1)


def test_silence_and_the_next_beat_in_one_step(bench: Bench) -> None:
    """After a long pause of the program both are due; the session is over, and nothing is said."""
    bench.open()
    bench.step(after_ns=3_900 * MILLISECOND_NS)
    effects = bench.step(after_ns=60 * SECOND_NS)
    assert any(isinstance(effect, Reopen) for effect in effects)
    assert not any(isinstance(message, m.Heartbeat) for message in sent(effects))


def test_a_broker_that_allows_no_silence_does_not_make_us_spin() -> None:
    """Found by the fuzzer: with 0 ms each turn opened a new connection at once."""
    bench = Bench()
    bench.step(Connected())
    bench.session_number, bench.number = 1, 0
    bench.hear(m.Welcome(1, 5, BROKER, 0, 0, 10, 1_000, False, {}))
    bench.step(after_ns=MILLISECOND_NS)
    assert bench.session.wake_at() > bench.now_ns
    effects = bench.step(after_ns=SECOND_NS)
    assert sum(isinstance(effect, Reopen) for effect in effects) == 1
    assert not any(isinstance(effect, Reopen) for effect in bench.step())
    assert bench.session.wake_at() > bench.now_ns
