"""Values of generators at the agent and at the client: kept, counted, told again; no sockets."""

from __future__ import annotations

from evener.session_records import Effect, Submitted, Took, Valued
from evener.streaming import Buffer
from evener_wire import messages as m
from evener_worker import effects as f
from evener_worker import events as e
from tests.agent_harness import Bench as AgentBench
from tests.agent_harness import item, key, only, results
from tests.agent_harness import sent as said
from tests.unit.client_bench import Bench, Task, sent

# --- The agent ------------------------------------------------------------------------------------


def yielding(*values: bytes) -> AgentBench:
    bench = AgentBench(1).open()
    bench.say(m.Run([item(1)]))
    bench.start(1, 1)
    for index, value in enumerate(values):
        give(bench, index, value)
    return bench


def give(bench: AgentBench, index: int, value: bytes = b"", *, sequence: int = 1) -> list[f.Effect]:
    return bench.step(e.Yielded(1, sequence, index, bool(value), value))


def value(index: int, payload: bytes) -> m.Values:
    return m.Values([(*key(1), index, bool(payload), payload)])


def test_values_are_told_at_once_and_kept_until_taken() -> None:
    bench = yielding()
    assert value(0, b"a") in said(give(bench, 0, b"a"))
    assert value(1, b"b") in said(give(bench, 1, b"b"))
    assert only(bench.say(m.Taken([(*key(1), 1, False)])), f.Take) == [f.Take(1, 1, 1)]
    assert said(bench.say(m.Taken([(*key(1), 0, True)]))) == [value(1, b"b")]
    assert only(bench.say(m.Taken([(*key(1), 1, False)])), f.Take) == [], "no news"
    assert only(bench.say(m.Taken([(*key(1), 2, True)])), f.Take) == [f.Take(1, 1, 2)]
    bench.core.streams.check()


def test_what_comes_together_goes_together() -> None:
    bench = yielding()
    events = [e.Yielded(1, 1, index, True, b"x") for index in range(5)]
    (message,) = [x for x in said(bench.step(*events)) if type(x) is m.Values]
    assert [item[2] for item in message.items] == [0, 1, 2, 3, 4]
    large = [e.Yielded(1, 1, index, True, bytes(60_000)) for index in range(5, 15)]
    counts = [len(x.items) for x in said(bench.step(*large)) if type(x) is m.Values]
    assert sum(counts) == 10
    assert len(counts) == 2


def test_word_of_other_attempts_changes_nothing() -> None:
    bench = yielding(b"a")
    task_id, fence = key(1)
    for other in ((task_id, fence + 1, 1, True), (key(2)[0], fence, 1, True)):
        assert bench.say(m.Taken([other])) == []
    bench.finish(1, 1)
    assert bench.say(m.Taken([(*key(1), 1, True)])) == []
    assert not [x for x in said(give(bench, 1, b"late")) if type(x) is m.Values]


def test_a_new_session_is_told_what_is_not_taken_after_the_inventory() -> None:
    bench = yielding(b"a", b"b", b"c")
    bench.say(m.Taken([(*key(1), 1, False)]))
    bench.step(e.SendFailed())
    give(bench, 3)
    bench.step(e.Writable())
    messages = [x for x in said(bench.welcome(session=12)) if type(x) in (m.Offer, m.Values)]
    assert type(messages[0]) is m.Offer
    items = [item for message in messages[1:] for item in message.items]  # type: ignore[union-attr]
    assert items == [value(index, it).items[0] for index, it in ((1, b"b"), (2, b"c"), (3, b""))]


def test_a_worker_that_died_leaves_nothing_behind() -> None:
    bench = yielding(b"a", b"b")
    assert results(bench.die(1)) == [(1, m.LOST)]
    assert bench.say(m.Taken([(*key(1), 0, True)])) == []


# --- The client -----------------------------------------------------------------------------------


class Reading(Task):
    """A ticket that may be read."""

    unread = False
    dropped = False


def reading() -> tuple[Bench, Reading]:
    bench = Bench().open()
    ticket = Reading(bench.task().item)
    bench.step(Submitted([ticket]))
    bench.hear(m.Accepted(1))
    return bench, ticket


def hear(bench: Bench, task: Task, *values: tuple[int, int, bytes]) -> list[Effect]:
    """Values as (fence, index, payload); no payload is the end."""
    return bench.hear(m.Values([(task.item[0], fn, i, bool(p), p) for fn, i, p in values]))


def handed(effects: list[Effect]) -> list[tuple[int, m.Payload | None]]:
    return [(v[1], v[2]) for x in effects if isinstance(x, Valued) for v in x.values]


def taken(effects: list[Effect]) -> list[tuple[int, int, bool]]:
    return [i[1:] for x in sent(effects) if isinstance(x, m.Taken) for i in x.items]


def test_the_next_value_only_is_handed_on() -> None:
    bench, task = reading()
    effects = hear(bench, task, (7, 0, b"a"), (7, 1, b"b"))
    assert handed(effects) == [(7, b"a"), (7, b"b")]
    assert taken(effects) == []
    effects = hear(bench, task, (7, 0, b"a"), (7, 1, b"b"), (7, 2, b"c"))
    assert handed(effects) == [(7, b"c")]
    assert taken(effects) == [(7, 0, False)], "they came twice: what is taken is told again"


def test_a_gap_is_asked_for() -> None:
    bench, task = reading()
    assert taken(hear(bench, task, (7, 3, b"d"))) == [(7, 0, True)]
    assert handed(hear(bench, task, (7, 0, b"a"))) == [(7, b"a")]


def test_what_is_taken_is_told_once() -> None:
    bench, task = reading()
    hear(bench, task, (7, 0, b"a"), (7, 1, b"b"))
    assert taken(bench.step(Took(task.item[0], 7, 1))) == [(7, 1, False)]
    assert taken(bench.step(Took(task.item[0], 7, 1))) == []
    assert taken(bench.step(Took(task.item[0], 6, 2))) == [], "of an attempt that is over"
    assert taken(bench.step(Took(task.item[0], 0, None))) == [(7, 2, False)], "whatever has come"
    assert taken(bench.step(Took(b"?" * 16, 7, 1))) == []


def test_an_attempt_that_is_over_is_not_listened_to() -> None:
    bench, task = reading()
    hear(bench, task, (7, 0, b"a"), (7, 1, b"b"))
    effects = hear(bench, task, (8, 0, b"A"), (7, 2, b"c"), (8, 1, b""))
    assert handed(effects) == [(8, b"A"), (8, None)]


def test_values_that_nobody_reads_are_taken_as_they_come() -> None:
    bench, task = reading()
    task.unread = True
    effects = hear(bench, task, (7, 0, b"a"), (7, 1, b""))
    assert handed(effects) == []
    assert taken(effects) == [(7, 2, False)]
    assert task.dropped


def test_the_end_alone_is_no_value_that_was_dropped() -> None:
    bench, task = reading()
    task.unread = True
    hear(bench, task, (7, 0, b""))
    assert not task.dropped


def test_values_of_a_task_that_has_ended_are_counted() -> None:
    bench, task = reading()
    hear(bench, task, (7, 0, b"a"))
    bench.hear(m.Terminal([(task.item[0], m.TERMINAL_CANCELLED, b"", None)]))
    assert bench.session.counters.get("values_late") is None
    assert handed(hear(bench, task, (7, 1, b"b"))) == []
    assert bench.session.counters["values_late"] == 1


def test_a_buffer_never_mixes_two_attempts() -> None:
    buffer = Buffer()
    buffer.put(7, b"a")
    buffer.put(8, b"A")
    assert not buffer.restarted, "nobody had taken anything"
    assert buffer.take() == (b"A", 1)
    buffer.put(8, b"B")
    buffer.put(9, None)
    assert buffer.restarted
    assert [*buffer.values] == [None]
