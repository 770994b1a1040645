"""The pages on sources and on programs: each block is run, and prints what the page shows."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support import ROOT

_BLOCK = re.compile(r"<!-- (?P<how>[^\n]*) -->\n```\w*\n(?P<text>.*?)```\n", re.DOTALL)


@pytest.mark.parametrize("page", ["sources.md", "commands.md"])
def test_every_block(page: str, tmp_path: Path) -> None:
    text = (ROOT / "docs" / page).read_text(encoding="utf-8")
    blocks = [(block["how"], block["text"]) for block in _BLOCK.finditer(text)]
    assert len(blocks) == text.count("```") // 2, "a block that nobody runs"
    for how, content in blocks:
        if how.startswith("file: "):
            (tmp_path / how.removeprefix("file: ")).write_text(content, encoding="utf-8")
    shown = {how: content for how, content in blocks if how.startswith("run: python ")}
    assert len(shown) >= 4
    for how, content in shown.items():
        done = subprocess.run(
            [sys.executable, how.removeprefix("run: python ")],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=60,
            stdin=subprocess.DEVNULL,
        )
        assert done.stdout == content, (how, done.stderr)
        assert done.returncode == 0
