"""The README's blocks are run as they stand: a new user does nothing else.

Comments in front of a block say how: `file: NAME` writes it, `run: ...` runs it. A block without
such a comment is not run, and is listed here with the reason.
"""

from __future__ import annotations

import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.support import ROOT, Processes

_BLOCK = re.compile(
    r"(?:<!-- (?P<how>[^\n]*) -->\n)?```(?P<kind>\w*)\n(?P<text>.*?)```\n", re.DOTALL
)

# `make test` installed the checkout already; hosts other than this one are not there.
_NOT_RUN = ("pip install .", "evener broker --host 0.0.0.0 --insecure")


class Block(NamedTuple):
    """A fenced block and what stands in front of it."""

    how: str
    kind: str
    text: str


def _blocks(page: Path) -> list[Block]:
    found = _BLOCK.finditer(page.read_text(encoding="utf-8"))
    return [Block(f["how"] or "", f["kind"], f["text"]) for f in found]


README = _blocks(ROOT / "README.md")


def _one(how: str) -> Block:
    (block,) = [block for block in README if block.how == how]
    return block


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Where the user works: with the files that the README has them write."""
    here = tmp_path / "user"
    here.mkdir()
    for block in README:
        if block.how.startswith("file: "):
            (here / block.how.removeprefix("file: ")).write_text(block.text, encoding="utf-8")
    return here


@pytest.fixture
def up(folder: Path, processes: Processes) -> Iterator[subprocess.Popen[str]]:
    """The command that the README has them leave running, until it says that it is ready."""
    command = _one('run: background until "Next:"').text.split()
    assert command[0] == "evener"
    process = processes.start(sys.executable, "-m", *command, cwd=folder)
    assert process.stderr is not None
    said = ""
    for line in process.stderr:
        said += line
        if "Next:" in line:
            break
    else:
        pytest.fail(f"evener up ended before it was ready:\n{said}")
    yield process
    assert processes.kill(process, signal.SIGINT) in (0, 130)


def _run(folder: Path, *argv: str) -> str:
    done = subprocess.run(
        argv, cwd=folder, capture_output=True, text=True, timeout=60, stdin=subprocess.DEVNULL
    )
    assert done.returncode == 0, f"{argv}: {done.stdout}{done.stderr}"
    return done.stdout


def test_every_block_is_run_or_known_not_to_be() -> None:
    idle = [block for block in README if not block.how]
    assert len(idle) == len(_NOT_RUN)
    for block, start in zip(idle, _NOT_RUN, strict=True):
        assert block.text.startswith(start)


def test_commands_of_the_other_terminal(up: subprocess.Popen[str], folder: Path) -> None:
    lines = _one('run: prints "3"').text.splitlines()
    printed = [_run(folder, sys.executable, "-m", *line.split()) for line in lines]
    assert printed[0].split() == ["3"]
    assert "default" in printed[1]
    assert len([line for line in printed[2].splitlines() if ":" in line]) >= 4


def test_three_lines_without_an_app(folder: Path) -> None:
    (folder / "three.py").write_text(_one("run: script").text, encoding="utf-8")
    assert _run(folder, sys.executable, "three.py").strip() == str([n**2 for n in range(10)])


def test_script_with_an_app(up: subprocess.Popen[str], folder: Path) -> None:
    (folder / "script.py").write_text(_one("run: script with cluster").text, encoding="utf-8")
    printed = _run(folder, sys.executable, "script.py").splitlines()
    assert printed[:2] == ["3", str(sum(2 * n for n in range(1000)))]
    assert printed[2:7] == ["0", "2", "4", "6", "8"]
    assert printed[7] == "7"
    assert "split" in printed[8]


def test_bytes_of_the_journey(folder: Path) -> None:
    *shown, script = _blocks(ROOT / "docs" / "journey.md")
    assert script.how == "run: prints the blocks above"
    (folder / "journey.py").write_text(script.text, encoding="utf-8")
    assert _run(folder, sys.executable, "journey.py") == "".join(block.text for block in shown)
