"""What tasks write, on its way to their clients: at the worker and the agent."""

from __future__ import annotations

import io
import os
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import pytest

from evener_wire import messages as m
from evener_wire.limits import OUTPUT_CHARS_MAX
from evener_worker import effects as f
from evener_worker import events as e
from evener_worker.limits import (
    FORWARD_ATTEMPT_BYTES_MAX,
    FORWARD_BURST_BYTES,
    FORWARD_BYTES_MAX,
    FORWARD_BYTES_PER_SECOND,
)
from evener_worker.marking import Marked, Scope
from evener_worker.output import Lines, kept_lines
from tests.agent_harness import Bench as AgentBench
from tests.agent_harness import item, key, only

A, B = b"\xaa" * 16, b"\xbb" * 16


# --- The worker: where a task begins and ends -----------------------------------------------------


@pytest.fixture
def pipe() -> Iterator[tuple[int, int]]:
    reader, writer = os.pipe()
    yield reader, writer
    os.close(reader)
    os.close(writer)


def lines_of(*parts: bytes) -> tuple[list[tuple[str, str]], bytes]:
    """Pairs of task (its first digits) and text, and what the terminal shows."""
    found: list[tuple[str, str]] = []
    lines = Lines(b"", kept_lines())
    lines.taker = found.extend
    shown = b"".join([*map(lines.feed, parts), lines.end()])
    return [(task[:2], text) for task, text in found], shown


def begins(task: bytes) -> bytes:
    return b"\x1e" + task.hex().encode() + b"+\x1e"


ENDS = b"\x1e-\x1e"


def test_between_its_begin_and_its_end_all_is_of_the_task() -> None:
    printed = b"\x1e" + A.hex().encode() + b"\x1eprinted\n\x1e\x1e"
    data = b"before\n" + begins(A) + b"raw\n" + printed + b"more\n" + ENDS + b"after\n"
    whole = lines_of(data)
    assert whole == (
        [("", "before"), ("aa", "raw"), ("aa", "printed"), ("aa", "more"), ("", "after")],
        b"before\nraw\nprinted\nmore\nafter\n",
    )
    for size in (1, 2, 7, 34, 35, 36):
        pieces = [data[at : at + size] for at in range(0, len(data), size)]
        assert lines_of(*pieces) == whole


def test_no_line_is_of_two_of_them() -> None:
    data = b"half" + begins(A) + b"whole\nrest" + ENDS + begins(B) + b"next\n" + ENDS
    assert lines_of(data)[0] == [("", "half"), ("aa", "whole"), ("aa", "rest"), ("bb", "next")]


def test_what_was_left_in_a_buffer_is_of_whoever_wrote_it(pipe: tuple[int, int]) -> None:
    running: list[bytes] = [A]
    stream = io.TextIOWrapper(
        io.BufferedWriter(Marked(pipe[1], lambda: running[0])), line_buffering=True
    )
    scope = Scope()
    scope.enter([stream])
    scope.begin(A)
    stream.write("of the first")
    scope.end()
    running[0] = B
    scope.begin(B)
    stream.write("of the second\n")
    scope.end()
    found, _ = lines_of(os.read(pipe[0], 10_000))
    assert found == [("aa", "of the first"), ("bb", "of the second")]
    stream.detach()


def test_it_does_not_wait_where_nobody_reads(pipe: tuple[int, int]) -> None:
    scope = Scope()
    stream = io.TextIOWrapper(io.BufferedWriter(Marked(pipe[1], lambda: None)))
    scope.enter([stream])
    os.set_blocking(pipe[1], False)
    full = 0
    with suppress(BlockingIOError):
        while True:
            full += os.write(pipe[1], bytes(4_096))
    os.set_blocking(pipe[1], True)
    scope.begin(A)
    scope.end()
    assert len(os.read(pipe[0], 2 * full)) == full
    stream.detach()


def test_what_user_code_puts_in_its_place_gets_no_marks(
    pipe: tuple[int, int], tmp_path: Any
) -> None:
    stream = io.TextIOWrapper(io.BufferedWriter(Marked(pipe[1], lambda: None)))
    scope = Scope()
    scope.enter([stream])
    with (tmp_path / "own.txt").open("wb") as file:
        os.dup2(file.fileno(), pipe[1])
    scope.begin(A)
    scope.end()
    assert (tmp_path / "own.txt").read_bytes() == b""
    stream.detach()


# --- The agent ------------------------------------------------------------------------------------


def wanted(*forward: int, tasks: int = 1) -> AgentBench:
    """Workers with a task each, of which those at these places are wanted."""
    bench = AgentBench(tasks).open()
    bench.say(m.Run([item(number) for number in range(1, tasks + 1)], forward))
    for slot in range(1, tasks + 1):
        bench.start(slot, 1)
    return bench


def prints(
    bench: AgentBench, number: int, *texts: str, stream: int = 1, by: int | None = None
) -> list[f.Effect]:
    """The worker that has a task (or another one) writes lines with its mark."""
    slot = bench.slot_of(number) if by is None else by
    name = key(number)[0].hex()
    return bench.step(e.Printed(slot, stream, [(name, text) for text in texts]))


def outputs(effects: list[f.Effect]) -> list[tuple[int, int, int, str]]:
    """Task, number of the first line, stream and text of all that is sent."""
    return [
        (int.from_bytes(it[0], "big"), it[2], it[3], it[5])
        for effect in only(effects, f.Send)
        if type(effect.message) is m.Output
        for it in effect.message.items
    ]


def test_lines_go_at_once_and_then_together() -> None:
    bench = wanted(0)
    assert outputs(prints(bench, 1, "a", "b")) == [(1, 0, 1, "a\nb\n")]
    assert outputs(prints(bench, 1, "c")) == []
    assert outputs(prints(bench, 1, "d", stream=2)) == []
    assert outputs(prints(bench, 1, "e", stream=2)) == []
    assert outputs(bench.tick(20)) == []
    assert outputs(bench.tick(30)) == [(1, 2, 1, "c\n"), (1, 3, 2, "d\ne\n")]
    assert outputs(bench.tick(1_000)) == []


def test_the_rest_goes_before_the_result_with_their_number() -> None:
    bench = wanted(0)
    prints(bench, 1, "a")
    prints(bench, 1, "b")
    effects = bench.finish(1, 1)
    assert outputs(effects) == [(1, 1, 1, "b\n"), (1, 2, 1, "")]
    kinds = [type(it) for it in effects if isinstance(it, f.Send | f.SendResults)]
    assert kinds.index(f.Send) < kinds.index(f.SendResults)


def test_a_worker_that_dies_has_its_last_lines_told_before() -> None:
    bench = wanted(0)
    prints(bench, 1, "a")
    slot, name = bench.slot_of(1), key(1)[0].hex()
    effects = bench.step(
        e.Printed(slot, 2, [(name, "last words")]), e.Died(slot, 1, None, 9, ("last words",))
    )
    assert outputs(effects) == [(1, 1, 2, "last words\n"), (1, 2, 1, "")]


def test_what_nobody_asked_for_is_not_told() -> None:
    bench = wanted(1, tasks=2)
    assert outputs(prints(bench, 1, "not wanted")) == []
    one, two = bench.slot_of(1), bench.slot_of(2)
    assert outputs(prints(bench, 2, "written by another worker", by=one)) == []
    assert outputs(bench.step(e.Printed(two, 1, [("f" * 32, "x"), ("", "y")]))) == []
    assert outputs(prints(bench, 2, "wanted")) == [(2, 0, 1, "wanted\n")]


def test_silent_tasks_cost_no_message() -> None:
    bench = wanted(0)
    assert outputs(bench.finish(1, 1)) == []


def test_of_too_much_the_last_lines_are_kept_and_all_are_counted() -> None:
    bench = wanted(0)
    prints(bench, 1, "first")
    text = "x" * 999
    for _ in range(100):
        prints(bench, 1, *[text] * 10)
    sizes = bench.core.forwarding
    assert sizes._bytes <= FORWARD_ATTEMPT_BYTES_MAX  # pyright: ignore[reportPrivateUsage]
    *told, (_, count, _, end) = outputs(bench.finish(1, 1))
    assert (count, end) == (1_001, "")
    first = told[0][1]
    lines = sum(text.count("\n") for _, _, _, text in told)
    assert first + lines == 1_001, "nothing is missing behind the first that came"
    assert lines * 1_000 > FORWARD_ATTEMPT_BYTES_MAX * 3 // 4
    assert all(len(text) <= OUTPUT_CHARS_MAX for *_, text in told)


def test_all_together_are_bounded_in_memory_and_in_time() -> None:
    tasks = 24
    bench = wanted(*range(tasks), tasks=tasks)
    told = 0
    for _ in range(3):
        for number in range(1, tasks + 1):
            told += len(outputs(prints(bench, number, *["x" * 9_999] * 20)))
    kept = bench.core.forwarding._bytes  # pyright: ignore[reportPrivateUsage]
    assert FORWARD_BYTES_MAX * 3 // 4 < kept <= FORWARD_BYTES_MAX
    # Once the burst is spent, a second brings so much and no more.
    for _ in range(10):
        bench.tick(60)
    sent_bytes = sum(len(it[3]) for _ in range(20) for it in outputs(bench.tick(50)))
    assert FORWARD_BYTES_PER_SECOND * 3 // 4 < sent_bytes < FORWARD_BYTES_PER_SECOND * 5 // 4


def test_floods_of_others_leave_room_for_last_words() -> None:
    bench = wanted(0, 1, tasks=2)
    for _ in range(40):
        prints(bench, 1, *["x" * 9_999] * 20)
        bench.tick(50)
    prints(bench, 2, *["y" * 999] * 100)
    *told, _ = [it for it in outputs(bench.finish(bench.slot_of(2), 2)) if it[0] == 2]
    assert sum(text.count("\n") for *_, text in told) == 100
    assert FORWARD_BURST_BYTES // 2 > 100_000


def test_without_a_session_lines_wait_within_bounds() -> None:
    bench = wanted(0)
    bench.step(e.SendFailed())
    for _ in range(100):
        assert outputs(prints(bench, 1, *["x" * 999] * 10)) == []
    assert outputs(bench.finish(1, 1)) == []
    bench.step(e.Writable())
    *_, (_, count, _, end) = outputs(bench.welcome(session=12))
    assert (count, end) == (1_000, "")
