"""What tasks side by side write through Python, as agents read it: lines, each of one task."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from evener_worker import marking
from evener_worker.limits import LINE_BYTES_MAX
from evener_worker.output import Lines, kept_lines


class Writing:
    """One output of a worker whose tasks take turns, and its other end at the agent."""

    def __init__(self) -> None:
        self.reads, self.fd = os.pipe()
        self.running: bytes | None = None
        self._asides: dict[bytes, dict[int, str]] = {}
        self.text = marking.MarkedText(marking.Marked(self.fd, lambda: self.running), "utf-8")
        self.text.aside = self._aside
        self._lines = Lines(b"", kept_lines())
        self.read: list[tuple[str, str]] = []
        self._lines.taker = self.read.extend

    def _aside(self) -> dict[int, str] | None:
        return None if self.running is None else self._asides.setdefault(self.running, {})

    def write(self, task: int, text: str) -> None:
        """A task writes; task 0 is none."""
        self.running = bytes(15) + bytes([task]) if task else None
        self.text.write(text)

    def end(self, task: int) -> None:
        """It has ended."""
        self.running = bytes(15) + bytes([task])
        marking.spill(self._asides.pop(self.running, {}))

    def lines(self) -> list[tuple[int, str]]:
        """What the agent read: of which task, and the text."""
        self.text.flush()
        self._lines.feed(os.read(self.reads, 1 << 20))
        return [(int(task or "0", 16), text) for task, text in self.read]

    def close(self) -> None:
        self.text.detach()
        os.close(self.fd)
        os.close(self.reads)


@pytest.fixture
def writing(monkeypatch: pytest.MonkeyPatch) -> Iterator[Writing]:
    made = Writing()
    monkeypatch.setitem(marking._texts, made.fd, made.text)
    yield made
    made.close()


def test_halves_of_lines_do_not_mix(writing: Writing) -> None:
    for task in (1, 2):
        writing.write(task, f"{task} begins")
    for task in (1, 2):
        writing.write(task, f" and ends\n{task} again\n")
    writing.write(0, "nobody's\n")
    assert writing.lines() == [
        (1, "1 begins and ends"),
        (1, "1 again"),
        (2, "2 begins and ends"),
        (2, "2 again"),
        (0, "nobody's"),
    ]


def test_a_line_without_an_end_ends_with_its_task(writing: Writing) -> None:
    writing.write(1, "half of 1")
    writing.write(2, "half of 2")
    writing.end(1)
    writing.write(2, ", whole\n")
    writing.end(2)
    assert writing.lines() == [(1, "half of 1"), (2, "half of 2, whole")]


def test_a_line_that_grows_too_long_goes_out_as_one_of_its_task(writing: Writing) -> None:
    writing.write(1, "short\n" + "x" * (LINE_BYTES_MAX + 1))
    writing.write(2, "of 2\n")
    writing.write(1, "and on\n")
    assert writing.lines() == [
        (1, "short"),
        (1, "x" * (LINE_BYTES_MAX + 1)),
        (2, "of 2"),
        (1, "and on"),
    ]


def test_nothing_is_added_to_a_file_that_user_code_put_there(
    writing: Writing, tmp_path: Path
) -> None:
    kept = os.dup(writing.fd)
    with (tmp_path / "file").open("wb") as file:
        os.dup2(file.fileno(), writing.fd)
        writing.write(1, "whole\nhalf")
        writing.end(1)
        os.dup2(kept, writing.fd)
        os.close(kept)
    assert (tmp_path / "file").read_text() == "whole\nhalf"
