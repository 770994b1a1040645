"""The pages on hooks and on clusters without workers: what is in them runs as they say."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from tests.integration.postgresql import postgresql
from tests.integration.test_docs_later import blocks_of
from tests.support import ROOT, Processes

ROOTS = os.pathsep.join(str(ROOT / name) for name in ("wire", "broker", "client", "worker"))


def run(folder: Path, text: str, **environment: str) -> str:
    paths = os.pathsep.join([str(folder), *sys.path, ROOTS])
    done = subprocess.run(
        [sys.executable, "-c", text],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": paths, **environment},
        capture_output=True,
        text=True,
        timeout=90,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, ""), done.stderr
    return done.stdout.rstrip("\n")


def run_page(folder: Path, page: str, kind: str, **environment: str) -> int:
    """Writes the files of this kind, runs its programs; how many it ran."""
    ran = 0
    for how, text in blocks_of(page):
        if how.startswith(("file: ", "postgresql: ")) and how.endswith(".py"):
            (folder / how.partition(": ")[2]).write_text(text, encoding="utf-8")
        elif how.startswith(f"{kind}: prints "):
            assert run(folder, text, **environment) == how.split('"')[1]
            ran += 1
    return ran


def test_hooks_and_a_database_for_each_worker(tmp_path: Path) -> None:
    assert run_page(tmp_path, "hooks.md", "run") == 2


def test_without_workers(tmp_path: Path) -> None:
    assert run_page(tmp_path, "without-workers.md", "run") == 1
    (tests,) = (b for b in blocks_of("without-workers.md") if b.how.startswith("test: "))
    (tmp_path / "test_shop.py").write_text(tests.text, encoding="utf-8")
    run(tmp_path, "import pytest; raise SystemExit(pytest.main(['-q', '-p', 'no:cacheprovider']))")


def test_postgresql_with_a_connection_for_each_worker(tmp_path: Path, processes: Processes) -> None:
    with postgresql(processes) as address:
        assert run_page(tmp_path, "hooks.md", "postgresql", DATABASE_URL=address) == 1
