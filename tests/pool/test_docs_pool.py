"""The page on pools inside a program: its scripts are run, and print what the page says."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest

from tests.support import ROOT, Processes

_TEXT = (ROOT / "docs" / "pool.md").read_text(encoding="utf-8")
_SCRIPT = re.compile(
    r"<!-- script -->\n```python\n(.*?)```\n\n<!-- prints -->\n```\n(.*?)```\n", re.DOTALL
)
SCRIPTS = _SCRIPT.findall(_TEXT)


def test_every_block_is_run() -> None:
    assert 2 * len(SCRIPTS) == _TEXT.count("```") // 2
    assert len(SCRIPTS) == 5


@pytest.mark.parametrize(("script", "printed"), SCRIPTS)
def test_a_script_prints_what_the_page_says(
    script: str, printed: str, processes: Processes, tmp_path: Path
) -> None:
    path = tmp_path / "script.py"
    path.write_text(script, encoding="utf-8")
    run = processes.start(sys.executable, path)
    stdout, stderr = run.communicate(timeout=30)
    assert (run.returncode, stdout, stderr) == (0, printed, "")
