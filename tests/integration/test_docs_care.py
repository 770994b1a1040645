"""The page on care of workers: its commands are run, and print what the page shows."""

from __future__ import annotations

import re

from tests.integration.cli_cluster import Starter
from tests.integration.test_docs_later import (
    alike,
    blocks_of,
    check_commands,
    start,
    stop,
    write_files,
)


def without_pids(text: str) -> list[str]:
    return [re.sub(r"  \d{2,}  ", "  PID  ", line) for line in alike(text)]


def test_care_of_workers(starter: Starter) -> None:
    blocks = blocks_of("care-of-workers.md")
    write_files(blocks, starter.folder)
    up = start(starter, blocks)
    texts = dict(blocks)
    shown = texts["run: with any pids"].partition("\n")[2]
    listed = up.evener("ls", "workers").stdout
    assert without_pids(listed) == without_pids(shown)
    for block in blocks:
        if block.how == "run: as it is":
            check_commands(up, block.text, lambda word: word)
    listed = up.evener("ls", "workers").stdout
    (pid,) = re.findall(r"^node-1:1 +(\d+)", listed, re.MULTILINE)
    check_commands(up, texts["run: with a worker"].replace("18231", pid), lambda word: word)
    stop(up)
