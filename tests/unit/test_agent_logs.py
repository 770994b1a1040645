"""What workers wrote: whose lines are whose, what is kept of them, and how readers get them."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any

import pytest

from evener_wire import messages as m
from evener_wire.codec import Envelope
from evener_worker import effects as f
from evener_worker import events as e
from evener_worker import logs as logs_module
from evener_worker.limits import LINE_BYTES_MAX, LOG_LOOK_NS, LOG_WAIT_NS
from evener_worker.logs import Logs
from evener_worker.marking import Marked
from evener_worker.output import Lines, kept_lines
from tests.agent_harness import Bench, only
from tests.unit.test_agent_questions import answers

A, B = b"\xaa" * 16, b"\xbb" * 16


def mark(task: bytes, text: bytes) -> bytes:
    return b"\x1e" + task.hex().encode() + b"\x1e" + text + b"\x1e\x1e"


def lines_of(*parts: bytes) -> tuple[list[tuple[str, str]], bytes]:
    """Pairs of task (its first digits) and text, and what the terminal shows."""
    found: list[tuple[str, str]] = []
    lines = Lines(b"", kept_lines())
    lines.taker = found.extend
    shown = b"".join([*map(lines.feed, parts), lines.end()])
    return [(task[:2], text) for task, text in found], shown


# --- Whose output it is ---------------------------------------------------------------------------


def test_lines_are_of_the_task_that_wrote_them() -> None:
    data = b"start\n" + mark(A, b"one\ntwo\n") + b"raw\n" + mark(B, b"three\n")
    found = [("", "start"), ("aa", "one"), ("aa", "two"), ("", "raw"), ("bb", "three")]
    assert lines_of(data) == (found, b"start\none\ntwo\nraw\nthree\n")


def test_marks_may_come_in_any_pieces() -> None:
    data = mark(A, b"one\n") + mark(B, b"half ") + mark(A, b"line\n") + b"raw"
    whole = lines_of(data)
    assert whole == ([("aa", "one"), ("bb", "half line"), ("", "raw")], b"one\nhalf line\nraw\n")
    for size in (1, 2, 7, 33, 34, 35):
        pieces = [data[at : at + size] for at in range(0, len(data), size)]
        assert lines_of(*pieces) == whole


def test_what_only_looks_like_a_mark_stays_in_the_text() -> None:
    found, shown = lines_of(b"a\x1eb\n", b"\x1e" + b"ab" * 20 + b"\n", b"end \x1e")
    assert found == [("", "ab"), ("", "ab" * 20), ("", "end ")]
    assert shown == b"a?b\n?" + b"ab" * 20 + b"\nend ?\n"


def test_a_long_line_of_a_task_is_cut_and_stays_its_own() -> None:
    found, _ = lines_of(mark(A, b"x" * (LINE_BYTES_MAX + 5) + b"\n"))
    assert [(task, len(text)) for task, text in found] == [("aa", LINE_BYTES_MAX + 5)]
    found, _ = lines_of(mark(A, b"x" * (LINE_BYTES_MAX + 5)), mark(B, b"y\n"))
    assert [(task, len(text)) for task, text in found] == [("aa", LINE_BYTES_MAX), ("aa", 6)]


@pytest.fixture
def pipe() -> Iterator[tuple[int, int]]:
    reader, writer = os.pipe()
    yield reader, writer
    os.close(reader)
    os.close(writer)


def test_writing_marks_while_a_task_runs(pipe: tuple[int, int]) -> None:
    running: list[bytes] = []
    stream = Marked(pipe[1], lambda: running[0] if running else None)
    assert stream.write(b"before\n") == 7
    running.append(A)
    assert stream.write(memoryview(b"in it\n")) == 6
    assert os.read(pipe[0], 1_000) == b"before\n" + mark(A, b"in it\n")


def test_what_user_code_puts_in_its_place_gets_no_marks(
    pipe: tuple[int, int], tmp_path: Any
) -> None:
    stream = Marked(pipe[1], lambda: A)
    kept = os.dup(pipe[1])
    with (tmp_path / "own.txt").open("wb") as file:
        os.dup2(file.fileno(), pipe[1])
    assert stream.write(b"mine\n") == 5
    assert (tmp_path / "own.txt").read_bytes() == b"mine\n"
    os.dup2(kept, pipe[1])
    os.close(kept)


# --- What is kept, and who reads it ---------------------------------------------------------------


class Reading:
    """Lines of two workers, and a clock."""

    def __init__(self) -> None:
        self.now_ns = 1_000
        self.events: list[e.Event] = []
        self.logs = Logs(lambda: self.now_ns, self.events)
        self.one = self.logs.taker("n:1", 101, 1)
        self.two = self.logs.taker("n:2", 102, 2)

    def write(self, *texts: str, task: str = "") -> None:
        self.one([(task, text) for text in texts])

    def ask(self, **wanted: Any) -> None:
        self.logs.ask(9, wanted)

    def answer(self) -> dict[str, Any]:
        (event,) = self.events
        self.events.clear()
        assert isinstance(event, e.LogRead)
        assert event.number == 9
        return dict(event.answer)

    def read(self, **wanted: Any) -> dict[str, Any]:
        self.ask(**wanted)
        return self.answer()

    def pass_ns(self, ns: int) -> None:
        self.now_ns += ns
        self.logs.look()


def texts(answer: dict[str, Any]) -> list[str]:
    return [line[-1] for line in answer["lines"]]


def test_the_last_lines_and_those_after_them() -> None:
    reading = Reading()
    reading.write("a", "b", "c")
    first = reading.read(tail=2)
    assert (texts(first), first["lost"], first["more"]) == (["b", "c"], 0, False)
    time_ms, *rest = first["lines"][0]
    assert rest == ["n:1", 101, "stdout", "", "b"]
    assert time_ms > 1_600_000_000_000
    reading.two([("aabb", "d")])
    then = reading.read(ring=first["ring"], after=first["after"])
    assert then["lines"][0][1:] == ("n:2", 102, "stderr", "aabb", "d")
    assert texts(reading.read(tail=0)) == []


@pytest.mark.parametrize("wanted", [{"worker": "n:2"}, {"pid": 102}, {"task": "aa"}])
def test_only_what_is_wanted(wanted: dict[str, Any]) -> None:
    reading = Reading()
    reading.write("no", "no", task="abab")
    reading.two([("aabb", "yes")])
    reading.write("no")
    assert texts(reading.read(tail=10, **wanted)) == ["yes"]
    assert texts(reading.read(tail=1, **wanted)) == ["yes"]


def test_the_oldest_go_first_and_are_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logs_module, "LOG_LINES_MAX", 3)
    reading = Reading()
    place = reading.read(tail=0)
    reading.write(*"abcde")
    assert (texts(reading.read(tail=3)), reading.read(tail=3)["lost"]) == (["c", "d", "e"], 0)
    assert reading.read(tail=4)["lost"] == 2
    late = reading.read(ring=place["ring"], after=place["after"])
    assert (texts(late), late["lost"]) == (["c", "d", "e"], 2)


def test_bytes_are_bounded_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logs_module, "LOG_BYTES_MAX", 10_000)
    reading = Reading()
    for _ in range(20):
        reading.write("x" * 1_000)
    answer = reading.read(tail=20)
    assert (len(answer["lines"]), answer["lost"]) == (8, 12)


def test_a_long_answer_comes_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logs_module, "LOG_ANSWER_BYTES_MAX", 2_000)
    reading = Reading()
    reading.write(*(f"{n:0100}" for n in range(10)))
    found: list[str] = []
    answer = reading.read(tail=10)
    found += texts(answer)
    assert answer["more"]
    while answer["more"]:
        answer = reading.read(ring=answer["ring"], after=answer["after"])
        assert answer["lines"]
        found += texts(answer)
    assert [int(text) for text in found] == [*range(10)]


def test_who_follows_hears_of_lines_that_come_together() -> None:
    reading = Reading()
    assert reading.logs.next_at() is None
    reading.ask(tail=0, wait_ms=10_000)
    assert reading.logs.next_at() == 1_000 + LOG_WAIT_NS
    reading.write("a")
    reading.write("b")
    assert reading.logs.next_at() == 1_000 + LOG_LOOK_NS
    reading.pass_ns(LOG_LOOK_NS - 1)
    assert reading.events == []
    reading.pass_ns(1)
    assert texts(reading.answer()) == ["a", "b"]
    assert reading.logs.next_at() is None


def test_who_follows_one_worker_is_not_woken_by_another() -> None:
    reading = Reading()
    reading.ask(tail=0, wait_ms=10_000, worker="n:2")
    reading.write("a")
    reading.pass_ns(LOG_LOOK_NS)
    assert reading.events == []
    reading.pass_ns(LOG_WAIT_NS)
    answer = reading.answer()
    assert (texts(answer), answer["after"], answer["lost"]) == ([], 1, 0)


def test_who_follows_slowly_learns_what_was_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logs_module, "LOG_LINES_MAX", 3)
    reading = Reading()
    reading.ask(tail=0, wait_ms=10_000)
    reading.write(*"abcde")
    reading.pass_ns(LOG_LOOK_NS)
    answer = reading.answer()
    assert (texts(answer), answer["lost"]) == (["c", "d", "e"], 2)


@pytest.mark.parametrize(
    "wanted",
    [
        {"after": 1 << 60},
        {"after": -1},
        {"after": "x", "ring": 5},
        {"tail": -1},
        {"tail": None, "wait_ms": "x"},
        {"task": 5, "pid": "x", "worker": b"y", "wait_ms": -1},
    ],
)
def test_odd_questions_are_answered(wanted: dict[str, Any]) -> None:
    reading = Reading()
    reading.write("a")
    ring = reading.read(tail=0)["ring"]
    assert reading.read(**{"ring": ring, **wanted})["after"] <= 1


# --- The question ---------------------------------------------------------------------------------


def test_a_question_goes_to_the_lines_and_its_answer_back() -> None:
    bench = Bench().open()
    assert only(bench.say(m.Query(5, "logs", {"tail": 3})), f.ReadLog) == [
        f.ReadLog(1, {"tail": 3})
    ]
    (answer,) = answers(bench.step(e.LogRead(1, {"lines": [], "after": 7})))
    assert answer == (5, True, {"host": "n", "lines": [], "after": 7})


def test_an_answer_for_an_earlier_session_goes_nowhere() -> None:
    bench = Bench().open()
    bench.say(m.Query(5, "logs", {}))
    bench.step(e.Received(Envelope(0, 0, m.Resync(""))))
    assert answers(bench.step(e.LogRead(1, {"lines": []}))) == []
