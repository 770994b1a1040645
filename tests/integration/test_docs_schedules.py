"""The page on schedules: its blocks are run, and print what the page shows."""

from __future__ import annotations

from tests.integration.cli_cluster import Starter
from tests.integration.test_docs_later import blocks_of, check_commands, start, stop, write_files
from tests.support import wait_until


def test_schedules(starter: Starter) -> None:
    blocks = blocks_of("schedules.md")
    write_files(blocks, starter.folder)
    up = start(starter, blocks)
    check_commands(up, dict(blocks)["run: commands"], lambda word: word)
    done = up.evener("schedule", "run", "shop.report", "--json")
    assert done.returncode == 0, done.stderr
    assert '"name": "shop.report"' in done.stdout
    wrong = up.evener("schedule", "run", "shop.reprot")
    assert wrong.returncode != 0
    assert "there are: shop.delete_expired, shop.report" in wrong.stderr
    listed = wait_until(lambda: up.evener("ls", "tasks").stdout, why="the tasks")
    assert "shop.delete_expired" in listed
    stop(up)
