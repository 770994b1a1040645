"""The pages on statistics and logs: their blocks are run, and print what the pages show."""

from __future__ import annotations

import json
import re

from tests.integration.cli_cluster import Starter
from tests.integration.test_docs_later import (
    alike,
    blocks_of,
    check_commands,
    run_script,
    start,
    stop,
    write_files,
)
from tests.support import wait_until


def test_statistics(starter: Starter) -> None:
    blocks = blocks_of("statistics.md")
    texts = dict(blocks)
    write_files(blocks, starter.folder)
    up = start(starter, blocks)
    assert run_script(up, texts["file: ask.py"]) == texts["run: prints"]
    check_commands(up, texts["run: commands"], lambda word: word)
    rows = json.loads(up.evener("ls", "functions", "--json").stdout)["rows"]
    assert [(row["name"], row["completed"], row["failed"]) for row in rows] == [
        ("shop.deliver", 5, 5),
        ("shop.price", 100, 0),
    ]
    status = up.evener("status").stdout
    assert "WAIT P99" in status
    stop(up)


def test_logs(starter: Starter) -> None:
    blocks = blocks_of("logs.md")
    texts = dict(blocks)
    write_files(blocks, starter.folder)
    up = start(starter, blocks)

    def shows(block: str, *arguments: str) -> None:
        """The lines are kept a moment after they were written."""
        expected = [untimed(line) for line in texts[block].splitlines()[1:]]
        wait_until(lambda: logs(*arguments) == expected, why=f"the lines: {expected}")

    def logs(*arguments: str) -> list[str]:
        done = up.evener("logs", *arguments)
        assert (done.returncode, done.stderr) == (0, "")
        return [untimed(line) for line in done.stdout.splitlines()]

    assert up.evener(*texts["run: bake"].split()[1:]).stdout == "3\n"
    shows("run: the bread")
    following = starter.follow(up, "logs", "-f", "--tail", "1", "--json")
    wait_until(lambda: len(following.lines()) == 1, why="the last line")
    task_id = up.evener("submit", "bakery.burn").stdout.strip()
    shows("run: the fire", task_id[:8])
    wait_until(lambda: any("hot" in line for line in following.lines()), why="the next line")
    told = [json.loads(line) for line in following.lines()]
    (fire,) = (line for line in told if line["task"] == task_id)
    assert (fire["host"], fire["worker"], fire["stream"]) == ("shop", "shop:1", "stdout")
    whole = logs(f"shop/{fire['pid']}")
    assert "shop:1 ID it is getting hot" in whole
    assert any("Fatal Python error: Aborted" in line for line in whole)
    nobody = up.evener("logs", "nobody")
    assert nobody.returncode == 1
    assert 'no host has the name "nobody" (there are: shop)' in nobody.stderr
    stop(up)


def untimed(line: str) -> str:
    """Without what differs from run to run."""
    (text,) = alike(re.sub(r"^\S+Z ", "", line)) or [""]
    return text
