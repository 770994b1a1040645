"""The pages on what tasks can do: their blocks are run, and print what the pages show."""

from __future__ import annotations

import re
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

from tests.integration.cli_cluster import Starter
from tests.integration.test_docs_later import (
    alike,
    blocks_of,
    run_script,
    start,
    stop,
    write_files,
)


def check_scripts(starter: Starter, page: str) -> Path:
    """Each script that is followed by what it prints prints that. Where it ran."""
    blocks = blocks_of(page)
    write_files(blocks, starter.folder)
    up = start(starter, blocks)
    shown = 0
    for script, output in pairwise(blocks):
        if output.how == "run: prints":
            assert run_script(up, script.text) == output.text
            shown += 1
    assert shown == sum(block.how == "run: prints" for block in blocks) > 0
    stop(up)
    return starter.folder


def test_progress(starter: Starter) -> None:
    check_scripts(starter, "progress.md")


def test_progress_on_the_command_line(starter: Starter) -> None:
    blocks = blocks_of("progress.md")
    write_files(blocks, starter.folder)
    up = start(starter, blocks)
    done = up.evener("submit", "imports.load", "400", "--wait", "--progress")
    assert (done.returncode, done.stdout) == (0, "400\n")
    lines = done.stderr.splitlines()
    assert lines
    assert all(re.fullmatch(r"imports\.load\[\w{8}\] \d+ of 400: \w+( \d+)?", it) for it in lines)
    alone = up.evener("submit", "imports.load", "1", "--progress")
    assert alone.returncode == 2
    assert "--progress goes with --wait" in alone.stderr
    stop(up)


def test_output(starter: Starter) -> None:
    check_scripts(starter, "output.md")


def test_output_as_it_is_shown(starter: Starter) -> None:
    blocks = blocks_of("output.md")
    texts = dict(blocks)
    write_files(blocks, starter.folder)
    up = start(starter, blocks)
    command, *expected = texts["run: shows"].splitlines()
    assert command == "$ python ask.py"
    done = subprocess.run(
        [sys.executable, "ask.py"],
        cwd=up.folder,
        capture_output=True,
        text=True,
        timeout=90,
        check=True,
    )
    shown = [*done.stdout.splitlines(), *done.stderr.splitlines()]
    assert sorted(map(alike, shown)) == sorted(map(alike, expected))
    assert [line for line in done.stdout.splitlines() if "oven" in line] == []
    stop(up)


def test_many_at_once(starter: Starter) -> None:
    check_scripts(starter, "many-at-once.md")


def test_streams(starter: Starter) -> None:
    check_scripts(starter, "streams.md")


def test_stopping_tasks(starter: Starter) -> None:
    folder = check_scripts(starter, "stopping-tasks.md")
    assert (folder / "report.txt").read_text().endswith("(not complete)\n")
