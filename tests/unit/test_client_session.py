"""The client's session: events in, exact effects out, all redundant state recounted."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import count

import pytest

from evener.session import ClientSession
from evener.session_records import (
    Abandon,
    Answered,
    Asked,
    CancelAsked,
    CloseAsked,
    Connected,
    Disconnected,
    Effect,
    Event,
    Item,
    Log,
    Malformed,
    Received,
    Reject,
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
from evener_wire.limits import ACK_DELAY_NS, BATCH_ITEMS_MAX, MILLISECOND_NS, SECOND_NS

INSTANCE = b"i" * 16
BROKER = b"b" * 16
OTHER_BROKER = b"c" * 16
START_NS = 1_000 * SECOND_NS


@dataclass(eq=False)
class Task:
    """A ticket that is nothing else."""

    item: Item


@dataclass
class Bench:
    """A session with a clock and a broker that are moved by hand."""

    session: ClientSession = field(
        default_factory=lambda: ClientSession(INSTANCE, "test", {}, random.Random(1))
    )
    now_ns: int = START_NS
    session_number: int = 77
    number: int = 0
    ids: Iterator[int] = field(default_factory=lambda: count(1))

    def step(self, *events: Event, after_ns: int = 0) -> list[Effect]:
        self.now_ns += after_ns
        effects = self.session.step(self.now_ns, events)
        self.session.check()
        return effects

    def hear(self, *messages: m.Message) -> list[Effect]:
        """The broker says this in the session."""
        events: list[Event] = []
        for message in messages:
            self.number += 1
            events.append(Received(Envelope(self.session_number, self.number, message)))
        return self.step(*events)

    def hear_outside(self, message: m.Message) -> list[Effect]:
        return self.step(Received(Envelope(0, 0, message)))

    def welcome(self, broker: bytes = BROKER, epoch: int = 5, **limits: int) -> list[Effect]:
        """A new session."""
        self.session_number += 1
        self.number = 0
        return self.hear(welcome(broker, epoch, **limits))

    def open(self) -> Bench:
        self.step(Connected())
        self.welcome()
        return self

    def task(self, payload: m.Payload = b"p", function: str = "demo.add") -> Task:
        return Task((next(self.ids).to_bytes(16, "big"), function, payload, None))

    def tasks(self, number: int) -> list[Task]:
        return [self.task() for _ in range(number)]


def welcome(
    broker: bytes = BROKER, epoch: int = 5, tasks_max: int = 1_000_000, bytes_max: int = 1 << 30
) -> m.Welcome:
    return m.Welcome(1, epoch, broker, 1_000, 4_000, tasks_max, bytes_max, False, {})


def sent(effects: list[Effect]) -> list[m.Message]:
    return [effect.message for effect in effects if isinstance(effect, Send)]


def submits(effects: list[Effect]) -> list[tuple[list[Item], bool]]:
    return [(list(s.items), s.again) for s in sent(effects) if isinstance(s, m.Submit)]


def resolved(effects: list[Effect]) -> list[tuple[object, int]]:
    return [
        (ticket, item[1])
        for effect in effects
        if isinstance(effect, Resolve)
        for ticket, item in effect.endings
    ]


def done(*tasks: Task) -> m.Terminal:
    return m.Terminal([(task.item[0], m.TERMINAL_DONE, b"r", None) for task in tasks])


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


def test_a_busy_broker_is_asked_again_a_second_later(bench: Bench) -> None:
    bench.step(Connected())
    bench.hear_outside(m.Refused("busy", "full of sessions"))
    assert bench.session.state is State.GREETING
    assert sent(bench.step(after_ns=SECOND_NS - 1)) == []
    assert [type(x) for x in sent(bench.step(after_ns=1))] == [m.Hello]


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
    assert not bench.session.idle()
    bench.hear(m.Accepted(1))
    assert bench.session.idle()


def test_a_rejected_task_ends_with_the_reason(bench: Bench) -> None:
    bench.open()
    good, bad = bench.tasks(2)
    bench.step(Submitted([good, bad]))
    reason = "unknown_function"
    effects = bench.hear(m.Rejected([(bad.item[0], reason, "no such")]), m.Accepted(1))
    assert effects == [Reject([(bad, reason, "no such")])]
    assert len(bench.session.tasks) == 1


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
    assert bench.hear(rejected, m.Accepted(1)) == [Reject([(task, "queue_full", "full")])]


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
        Log("warning", "lost the broker (connection closed); 3 open tasks wait for it"),
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
    assert Reopen() not in effects
    assert bench.step(after_ns=1)[-3:] == [
        Log("warning", "lost the broker (silent)"),
        StateChanged(State.CONNECTING),
        Reopen(),
    ]
    assert Reopen() in bench.step(after_ns=4 * SECOND_NS)  # and again, while nothing answers


def test_what_was_read_late_counts_before_the_silence(bench: Bench) -> None:
    bench.open()
    beat = Received(Envelope(bench.session_number, 2, m.Heartbeat()))
    assert Reopen() not in bench.step(beat, after_ns=60 * SECOND_NS)


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
    assert bench.hear(m.Notice("unserved", text)) == [Log("warning", text)]


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
