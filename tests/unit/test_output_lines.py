"""Lines of tasks at the client that asked for them: counted, shown, handed on."""

from __future__ import annotations

import io
import threading

import pytest

from evener.outputs import OutputLine, Outputs
from evener.session_records import Effect, Submitted, Wrote
from evener_wire import messages as m
from tests.unit.client_bench import Bench, Task, done, sent

A = b"\xaa" * 16

# --- The session ---------------------------------------------------------------------------------


def bench_with(*tasks: Task) -> Bench:
    bench = Bench().open()
    bench.step(Submitted(tasks))
    return bench


def part(task: Task, first: int, *texts: str, fence: int = 5, stream: int = 1) -> m.Output:
    text = "".join(f"{text}\n" for text in texts)
    return m.Output([(task.item[0], fence, first, stream, "n:1", text)])


def wrote(effects: list[Effect]) -> list[tuple[int, int, list[str]]]:
    """Fence, how many lines are missing, and lines."""
    return [
        (fence, missing, [*lines])
        for effect in effects
        if isinstance(effect, Wrote)
        for _, fence, _, missing, _, lines in effect.parts
    ]


def task() -> Task:
    return Task((A, "demo.add", b"p", m.Options(forward_output=True)))


def test_lines_come_and_are_acknowledged_at_once() -> None:
    bench = bench_with(one := task())
    effects = bench.hear(part(one, 0, "a", "b"))
    assert wrote(effects) == [(5, 0, ["a", "b"])]
    assert sent(effects) == [m.Ack(bench.number)]


def test_what_is_missing_is_counted_and_what_came_is_passed_over() -> None:
    bench = bench_with(one := task())
    bench.hear(part(one, 0, "a", "b"))
    assert wrote(bench.hear(part(one, 0, "a", "b"))) == []
    assert wrote(bench.hear(part(one, 1, "b", "c"))) == [(5, 0, ["c"])]
    assert wrote(bench.hear(part(one, 13, "n"))) == [(5, 10, ["n"])]
    assert wrote(bench.hear(part(one, 14))) == []
    assert wrote(bench.hear(part(one, 20))) == [(5, 6, [])]


def test_another_attempt_counts_from_its_own_begin() -> None:
    bench = bench_with(one := task())
    bench.hear(part(one, 0, "a", "b", fence=5))
    assert wrote(bench.hear(part(one, 0, "a", fence=6))) == [(6, 0, ["a"])]
    assert wrote(bench.hear(part(one, 2, "late", fence=5))) == []
    assert wrote(bench.hear(part(one, 1, "b", fence=6))) == [(6, 0, ["b"])]


def test_nothing_is_kept_of_a_task_that_ended() -> None:
    bench = bench_with(one := task())
    bench.hear(part(one, 0, "a"))
    bench.hear(done(one))
    effects = bench.hear(part(one, 1, "late"))
    assert wrote(effects) == []
    assert m.Ack(bench.number) in sent(effects)
    assert not bench.session._work._lines  # pyright: ignore[reportPrivateUsage]


# --- What becomes of them ------------------------------------------------------------------------


def tell(outputs: Outputs, *texts: str, missing: int = 0, stream: int = 1, fence: int = 1) -> None:
    outputs.tell(Wrote([(task(), fence, "n:1", missing, stream, texts)]))


def test_they_are_shown_where_they_were_written(capsys: pytest.CaptureFixture[str]) -> None:
    outputs = Outputs()
    tell(outputs, "one", "t\x1b[2Jo")
    tell(outputs, "three", missing=1_234, stream=2, fence=m.fence_of(7, 2))
    outputs.close()
    shown = capsys.readouterr()
    assert shown.out == "demo.add[aaaaaaaa] n:1 | one\ndemo.add[aaaaaaaa] n:1 | t\\x1b[2Jo\n"
    assert shown.err == (
        "demo.add[aaaaaaaa] n:1 (attempt 2) | ... 1,234 lines left out\n"
        "demo.add[aaaaaaaa] n:1 (attempt 2) | three\n"
    )


def test_colours_are_for_terminals(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    import sys

    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    monkeypatch.setenv("TERM", "xterm")
    for no_color, expected in (
        ("", "\033[2mdemo.add[aaaaaaaa] n:1 |\033[0m one\n"),
        ("1", "demo.add[aaaaaaaa] n:1 | one\n"),
    ):
        monkeypatch.setenv("NO_COLOR", no_color)
        outputs = Outputs()
        tell(outputs, "one")
        outputs.close()
        assert capsys.readouterr().out == expected


def test_a_callback_gets_them_and_may_be_slow() -> None:
    reached, go_on = threading.Event(), threading.Event()
    came: list[OutputLine] = []

    def slow(line: OutputLine) -> None:
        came.append(line)
        reached.set()
        assert go_on.wait(20)

    outputs = Outputs()
    outputs.callback = slow
    tell(outputs, "first")
    assert reached.wait(20)
    for number in range(200):
        tell(outputs, *[f"{number}" + "x" * 9_999] * 10)
    go_on.set()
    outputs.close()
    assert came[0].text == "first"
    left_out = sum(line.left_out for line in came)
    assert left_out > 0
    assert len([line for line in came if not line.left_out]) + left_out == 2_001
    assert came[-1].text.startswith("199"), "the last ones are kept"


def test_a_thread_that_cannot_be_had_now_is_had_with_the_next_line(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def refuse(thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    came: list[str] = []
    outputs = Outputs()
    outputs.callback = lambda line: came.append(line.text)
    with monkeypatch.context() as patched:
        patched.setattr(threading.Thread, "start", refuse)
        tell(outputs, "a")
        outputs.close()
    outputs = Outputs()
    outputs.callback = lambda line: came.append(line.text)
    with monkeypatch.context() as patched:
        patched.setattr(threading.Thread, "start", refuse)
        tell(outputs, "b")
    tell(outputs, "c")
    outputs.close()
    assert came == ["b", "c"]


def test_a_callback_that_raises_does_not_end_it(caplog: pytest.LogCaptureFixture) -> None:
    came: list[str] = []

    def broken(line: OutputLine) -> None:
        came.append(line.text)
        raise ValueError(line.text)

    outputs = Outputs()
    outputs.callback = broken
    tell(outputs, "a", "b")
    outputs.close()
    assert came == ["a", "b"]
    assert "a callback of on_output raised" in caplog.text


def test_a_closed_stream_ends_nothing(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    import sys

    gone = io.StringIO()
    gone.close()
    monkeypatch.setattr(sys, "stdout", gone)
    outputs = Outputs()
    tell(outputs, "nobody sees this")
    tell(outputs, "but this", stream=2)
    outputs.close()
    assert capsys.readouterr().err == "demo.add[aaaaaaaa] n:1 | but this\n"
