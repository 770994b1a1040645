"""The pages on results and dead letters: their blocks are run, and print what the pages show."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from tests.integration.cli_cluster import Starter, Up
from tests.support import ROOT, Processes, descendants, is_running, wait_until

_BLOCK = re.compile(r"<!-- (?P<how>[^\n]*) -->\n```\w*\n(?P<text>.*?)```\n", re.DOTALL)

# What differs from run to run, and what stands for it.
_FIGURES = (
    (r"\b[0-9a-f]{32}\b", "WHOLE-ID"),
    (r"\b[0-9a-f]{8}\b", "ID"),
    (r"\(pid \d+\)", "(pid N)"),
    (r"\S+:\d+\b(?=  |$| \(pid)", "H:N"),
    (r"\b\d+ h \d+ min\b", "T"),
    (r"\b\d+ min \d+ s\b|\b\d+(\.\d+)? (µs|ms|s)\b", "T"),
    (r"\b\d+(\.\d+)? MiB\b", "SIZE"),
    (r'File "\S*/(\w+\.py)"', r'File "\1"'),
    (r" {2,}", "  "),
)


class Block(NamedTuple):
    """A fenced block and the comment in front of it."""

    how: str
    text: str


def blocks_of(page: str) -> list[Block]:
    text = (ROOT / "docs" / "how-to" / page).read_text(encoding="utf-8")
    found = [Block(f["how"], f["text"]) for f in _BLOCK.finditer(text)]
    assert len(found) == text.count("```") // 2, "a block that nobody runs"
    return found


def alike(text: str) -> list[str]:
    """The lines of a text without its figures."""
    for pattern, stands_for in _FIGURES:
        text = re.sub(pattern, stands_for, text, flags=re.MULTILINE)
    return [line.rstrip() for line in text.splitlines()]


def write_files(blocks: list[Block], folder: Path) -> None:
    for block in blocks:
        if block.how.startswith("file: "):
            (folder / block.how.removeprefix("file: ")).write_text(block.text, encoding="utf-8")


def start(starter: Starter, blocks: list[Block], port: int | None = None) -> Up:
    """The command that the page has them leave running."""
    (block,) = (block for block in blocks if block.how == 'run: background until "Next:"')
    evener, command, app, *options = block.text.split()
    assert (evener, command) == ("evener", "up")
    up = starter.start(*options, app=app, port=port)
    wait_until(lambda: "Next:" in up.text() or up.process.poll() is not None, 60, "the banner")
    assert up.process.poll() is None, up.text()
    return up


def check_commands(up: Up, text: str, real: Callable[[str], str]) -> None:
    """Each command of a console prints what follows it; `real` says which task an id stands for."""
    for part in text.split("$ evener ")[1:]:
        line, _, output = part.partition("\n")
        command = [real(word) for word in line.split()]
        done = up.evener(*command)
        assert done.returncode == 0, (command, done.stderr)
        expected = alike(output)
        assert alike(done.stdout)[: len(expected)] == expected, done.stdout


def run_script(up: Up, text: str) -> str:
    done = subprocess.run(
        [sys.executable, "-"],
        input=text,
        cwd=up.folder,
        capture_output=True,
        text=True,
        timeout=90,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def stop(up: Up) -> None:
    up.process.terminate()
    assert up.process.wait(30) == 0, up.text()


def test_results_later(starter: Starter, processes: Processes) -> None:
    blocks = blocks_of("results-later.md")
    texts = dict(blocks)
    write_files(blocks, starter.folder)
    up = start(starter, blocks)
    run_script(up, texts["file: begin.py"])
    task_id = (starter.folder / "id.txt").read_text()
    assert run_script(up, texts["file: later.py"]) == "3\n"
    # All of it ends as hard as it can, and begins anew with the same journal.
    parts = descendants(up.process.pid)
    assert processes.kill(up.process) != 0
    # The next broker takes the journal over when the last one has let go of it.
    wait_until(lambda: not any(map(is_running, parts)), why="the end of its parts")
    again = start(starter, blocks, up.port)
    assert run_script(again, texts["file: later.py"]) == "3\n"
    assert again.evener("result", task_id[:8]).stdout == "3\n"
    assert again.evener("show", task_id).stdout.startswith(f"task {task_id}\n")
    stop(again)


def test_results_on_the_command_line(starter: Starter) -> None:
    blocks = blocks_of("results-later.md")
    texts = dict(blocks)
    write_files(blocks, starter.folder)
    up = start(starter, blocks)
    task_id = up.evener("submit", "jobs.add", "1", "2", "--wait", "--json").stdout.split('"')[5]
    check_commands(up, texts["run: with the id"], lambda word: re.sub("^9f60d8c1$", task_id, word))
    script = texts['run: prints "5"'].replace("evener ", f"{sys.executable} -m evener ")
    done = subprocess.run(
        ["bash", "-euc", script], cwd=up.folder, capture_output=True, text=True, check=True
    )
    assert done.stdout == "5\n"
    stop(up)


def test_dead_letters(starter: Starter) -> None:
    blocks = blocks_of("dead-letters.md")
    write_files(blocks, starter.folder)
    up = start(starter, blocks)
    real: dict[str, str] = {}

    def learn() -> None:
        """The ids of the page, and those of the tasks that are listed now."""
        for shown, kind in (("e4a0542d", "failed"), ("1cba574f", "lost")):
            real.setdefault(shown, up.evener("ls", kind).stdout.splitlines()[1].split()[0])

    for how, text in blocks:
        if how == "run: both fail":
            for line in text.splitlines():
                assert up.evener(*line.split()[1:]).returncode == 1
            learn()
        elif how == "run: commands":
            check_commands(up, text, lambda word: real.get(word, word))
        elif how == "run: script":
            printed = run_script(up, text).splitlines()
            assert printed == ["jobs.convert is lost again: poison", "0 forgotten"]
        elif how == 'run: prints "7 of 9"':
            assert run_script(up, text) == "7 of 9\n"
        else:
            assert how.startswith(("file: ", "run: background"))
    stop(up)
