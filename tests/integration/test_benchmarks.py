"""The benchmarks still run, and write what their readers expect. No figure is looked at."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support import ROOT


def run(*arguments: str, seconds: float = 400) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, str(ROOT / "benchmarks/run.py"), *arguments],
        capture_output=True,
        text=True,
        timeout=seconds,
        check=False,
    )


def names() -> list[str]:
    return [line.split()[0] for line in run("--list").stdout.splitlines()]


@pytest.mark.slow
def test_every_comparison_runs_and_all_is_written(tmp_path: Path) -> None:
    path = tmp_path / "figures.json"
    done = run("--quick", "--json", str(path))
    assert done.returncode == 0, done.stdout + done.stderr
    found = json.loads(path.read_text())
    assert found["quick"] is True
    assert {"cpu", "cpus_usable", "python", "versions", "libzmq", "commit"} <= found[
        "machine"
    ].keys()
    assert list(found["comparisons"]) == names()
    for comparison in found["comparisons"].values():
        assert comparison["figures"]
        assert not comparison["failures"]
        for figures in comparison["figures"].values():
            for spread in figures.values():
                assert spread["min"] <= spread["median"] <= spread["max"]
                assert spread["rounds"]


def test_an_unknown_comparison_is_named_with_the_known_ones() -> None:
    done = run("--only", "nonsense")
    assert done.returncode == 2
    assert "round-trip" in done.stderr


def test_the_page_has_a_section_for_every_comparison() -> None:
    page = (ROOT / "docs/benchmarks.md").read_text()
    assert re.findall(r"^### `([a-z-]+)`", page, re.MULTILINE) == names()
    for name in names():
        assert f"python benchmarks/run.py --only {name}\n" in page
