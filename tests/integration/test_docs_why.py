"""The page on `evener why` and `evener stack` shows what the commands print, but for figures."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import evener
from tests.integration.cli_cluster import Starter
from tests.integration.test_stack import end
from tests.support import ROOT, Processes, wait_until

_PAGE = (ROOT / "docs" / "why.md").read_text(encoding="utf-8")
_BLOCK = re.compile(r"<!-- (?P<how>[^\n]*) -->\n```\w*\n(?P<text>.*?)```\n", re.DOTALL)
_BLOCKS = {found["how"]: found["text"] for found in _BLOCK.finditer(_PAGE)}

# What differs from run to run, and what stands for it.
_FIGURES = (
    (r"\[[0-9a-f]{8}\]", "[ID]"),
    (r"\(pid \d+\)", "(pid N)"),
    (r"host \S+", "host H"),
    (r"worker \S+:\d", "worker H:N"),
    (r"\b(\d+ min )?\d+(\.\d+)? (ms|s)\b", "T"),
    (r"0x[0-9a-f]+", "0x"),
    (r'File "\S*/(\w+\.py)"', r'File "\1"'),
    (r"line \d+ in (run|match)\b", r"line N in \1"),
    (r"\(sleeping\) in \w+", "(sleeping)"),
    (r"\(running\) in \w+", "(running)"),
)


def alike(text: str) -> list[str]:
    """The lines of a text without its figures."""
    for pattern, stands_for in _FIGURES:
        text = re.sub(pattern, stands_for, text)
    return text.splitlines()


def test_the_page_shows_what_is_printed(processes: Processes, tmp_path: Path) -> None:
    starter = Starter(processes, tmp_path)
    (tmp_path / "jobs.py").write_text(_BLOCKS["file: jobs.py"])
    up = starter.start("-n", "2", app="jobs:app")
    wait_until(lambda: "Next:" in up.text(), 30, "the banner")
    with evener.Client(f"tcp://127.0.0.1:{up.port}") as client:

        def submit(name: str, *arguments: object, **options: Any) -> str:
            return client.function(f"jobs.{name}", **options).submit(*arguments).task_id

        def wait_for(task: str, **facts: object) -> None:
            wait_until(
                lambda: facts.items() <= client.query("why", id=task).items(), why=f"{facts}"
            )

        fetch = submit("fetch", "http://example.org")
        wait_for(fetch, reason="retry")
        export = submit("export")
        wait_for(export, reason="running")
        report = submit("report", "a" * 60 + "b")
        wait_for(report, reason="running")
        wait_until(lambda: "pid" in client.query("why", id=export), why="a heartbeat")
        wait_until(lambda: "pid" in client.query("why", id=report), why="a heartbeat")
        ids = {"fetch": fetch, "export": export, "report": report, "add": submit("add", 1, 2)}
        submit("add", 3, 4, priority=9)
        ids["gpu"] = submit("add", 5, 6, queue="gpu")
        shown = {how: text for how, text in _BLOCKS.items() if not how.startswith("file: ")}
        assert len(shown) >= 6
        for how, text in shown.items():
            command, _, name = how.partition(": ")
            first, _, output = text.partition("\n")
            assert re.fullmatch(rf"\$ evener {command} [0-9a-f]{{8}}", first)
            done = up.evener(command, ids[name][:8])
            assert done.returncode == 0, done.stderr
            expected = alike(output)
            printed = alike(done.stdout)
            # Of a stack the page leaves out the end, which is evener's own.
            assert printed[: len(expected)] == expected, done.stdout
    end(up)


def test_every_reason_is_explained() -> None:
    source = (ROOT / "broker" / "evener_broker" / "why.py").read_text(encoding="utf-8")
    named = set(re.findall(r'(?:reason=|"reason"\] = |"reason": )"(\w+)"', source))
    assert named == set(re.findall(r"^\| [a-z, ]+ \| `(\w+)` \|", _PAGE, re.MULTILINE))
