"""Questions that the broker asks an agent: the stack of a worker, and what cannot be answered."""

from __future__ import annotations

import random
from typing import Any

import msgpack

from evener_wire import messages as m
from evener_wire.codec import Envelope, decode, encode
from evener_wire.limits import INLINE_BYTES_MAX
from evener_worker import effects as f
from evener_worker import events as e
from evener_worker.config import AgentConfig
from evener_worker.core import AgentCore
from evener_worker.limits import QUESTIONS_MAX, TOLD_WORKERS_MAX
from tests.agent_harness import MS, Bench, item, key, only, sent

KERNEL: dict[str, str | int | None] = {
    "state": "S (sleeping)",
    "threads": 1,
    "wchan": "futex",
    "syscall": None,
}


def answers(effects: list[f.Effect]) -> list[tuple[int, bool, Any]]:
    """Number, whether it was answered, and the body of each ANSWER."""
    found: list[tuple[int, bool, Any]] = []
    for message in sent(effects):
        assert isinstance(message, m.Answer)
        body = message.body
        packed = body.buffers[0] if isinstance(body, m.Frames) else body
        found.append((message.number, message.ok, msgpack.unpackb(packed)))
    return found


def ask(bench: Bench, number: int = 5, **about: Any) -> list[f.Effect]:
    return bench.say(m.Query(number, "stack", about))


def test_the_stack_of_a_worker_by_its_pid() -> None:
    bench = Bench().open()
    bench.now_ns += 30 * MS
    assert ask(bench, pid=102) == [f.Dump(2, 1)]
    ((number, ok, body),) = answers(bench.step(e.Dumped(1, "Thread 0x1", "", KERNEL)))
    assert (number, ok) == (5, True)
    assert body == {
        "host": "n",
        "worker": "n:2",
        "pid": 102,
        "state": "ready",
        "function": None,
        "task": None,
        "since_ms": 30,
        "stack": "Thread 0x1",
        "reason": None,
        "kernel": KERNEL,
    }


def test_the_stack_of_the_worker_that_runs_a_task() -> None:
    bench = Bench().open()
    bench.say(m.Run([item(1)]))
    bench.now_ns += 70 * MS
    task_id, fence = key(1)
    assert ask(bench, task=task_id, fence=fence) == [f.Dump(bench.slot_of(1), 1)]
    ((_, _, body),) = answers(bench.step(e.Dumped(1, "", "it is stopped", {})))
    assert (body["function"], body["task"], body["since_ms"]) == ("t.f", task_id.hex(), 70)
    assert (body["stack"], body["reason"]) == ("", "it is stopped")


def test_a_task_that_waits_here_or_ended_has_no_stack() -> None:
    bench = Bench(1).open()
    bench.core.handout.estimates.observe("t.f", 1)
    bench.say(m.Run([item(1), item(2)]))
    texts = [answers(ask(bench, task=key(n)[0], fence=key(n)[1]))[0][2] for n in (2, 3)]
    assert texts == [
        "the agent on n has this task, but no worker has started it",
        "the agent on n does not run this task any more",
    ]


def test_a_worker_that_is_not_here() -> None:
    bench = Bench().open()
    for about in ({"pid": 99}, {"pid": "101"}, {}, {"task": b"short"}):
        ((number, ok, text),) = answers(ask(bench, **about))
        assert (number, ok) == (5, False)
        assert "has no worker with pid" in text


def test_an_unknown_question() -> None:
    bench = Bench().open()
    ((_, ok, text),) = answers(bench.say(m.Query(6, "weather", {})))
    assert not ok
    known = "care, drain, logs, ping, restart, scale, stack"
    assert text == f'the agent on n cannot answer "weather"; it knows {known}'


def test_no_more_questions_than_the_limit() -> None:
    bench = Bench().open()
    for number in range(QUESTIONS_MAX):
        assert only(ask(bench, number, pid=101), f.Dump)
    ((_, ok, text),) = answers(ask(bench, 99, pid=101))
    assert not ok
    assert f"works on {QUESTIONS_MAX} questions" in text
    assert answers(bench.step(e.Dumped(1, "s", "", KERNEL)))
    assert only(ask(bench, 99, pid=101), f.Dump)


def test_an_answer_does_not_go_into_another_session() -> None:
    bench = Bench().open()
    ask(bench, pid=101)
    bench.step(e.Received(Envelope(0, 0, m.Resync(""))))
    assert sent(bench.step(e.Dumped(1, "s", "", KERNEL))) == []
    ask_again = Bench().open()
    ask(ask_again, pid=101)
    ask_again.step(e.Received(Envelope(0, 0, m.Resync(""))))
    ask_again.welcome(session=12)
    assert sent(ask_again.step(e.Dumped(1, "s", "", KERNEL))) == []


def test_a_long_stack_travels_in_a_frame_of_its_own() -> None:
    bench = Bench().open()
    ask(bench, pid=101)
    (message,) = sent(bench.step(e.Dumped(1, "x" * 2 * INLINE_BYTES_MAX, "", KERNEL)))
    assert len(encode(message, 1, 1)) == 2


def test_a_heartbeat_of_many_workers_with_long_names_fits_a_message() -> None:
    bench = Bench(4_096)
    name = "n" * 120
    config = AgentConfig("t:app", "tcp://127.0.0.1:1", workers=4_096, name=name)
    bench.core = AgentCore(config, b"i" * 16, random.Random(1), {})
    bench.core.begin(bench.now_ns)
    bench.welcome()
    up: list[e.Event] = []
    for slot in bench.core.pool.slots:
        up += [e.Spawned(slot, 1 << 22), e.Ready(slot, [("f" * 128, None)])]
    bench.core.step(bench.now_ns, up)
    runs = [item(number, "f" * 128) for number in range(3_000)]
    for start in range(0, 3_000, 1_000):
        bench.say(m.Run(runs[start : start + 1_000]))
    (beat,) = [message for message in sent(bench.tick(1_000)) if type(message) is m.Heartbeat]
    assert len(beat.workers) == TOLD_WORKERS_MAX
    assert all(worker["task"] for worker in beat.workers), "busy ones come first"
    assert decode(encode(beat, 1, 1)).message == m.Heartbeat(
        tuple(beat.running), tuple(beat.workers)
    )
