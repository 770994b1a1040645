"""The page on configuration: its files are read, its commands print what it shows."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

from tests.integration.test_docs_later import alike
from tests.support import ROOT

_BLOCK = re.compile(r"<!-- (?P<how>[^\n]*) -->\n```\w*\n(?P<text>.*?)```\n", re.DOTALL)


def evener(folder: Path, line: str, code: int) -> list[str]:
    """What a command line of the page prints, line by line."""
    words = shlex.split(line)
    variables = dict(word.split("=") for word in words[: words.index("evener")])
    done = subprocess.run(
        [sys.executable, "-m", "evener", *words[words.index("evener") + 1 :]],
        cwd=folder,
        env={**os.environ, **variables},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == code, done.stderr
    text = done.stderr if code else done.stdout
    return alike(text.replace(str(folder), "/home/you"))


def test_the_page_shows_what_the_commands_print(tmp_path: Path) -> None:
    page = (ROOT / "docs" / "configuration.md").read_text(encoding="utf-8")
    blocks = _BLOCK.findall(page)
    assert len(blocks) == page.count("```") // 2, "a block that nobody runs"
    for how, text in blocks:
        if how.startswith("file: "):
            (tmp_path / how.removeprefix("file: ")).write_text(text, encoding="utf-8")
            continue
        code = 78 if how == "fails: 78" else 0
        for part in text.split("$ ")[1:]:
            line, _, output = part.partition("\n")
            printed = evener(tmp_path, line, code)
            shown = [shown for shown in alike(output) if shown]
            # Of a list the page may show some lines.
            assert [shown_line for shown_line in shown if shown_line not in printed] == [], printed
