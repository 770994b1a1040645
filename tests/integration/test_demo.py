"""The demo on a real cluster, and the example as a user would start it."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

import evener.demo
from tests.support import ROOT, Processes, wait_until

_FILES = 120
_BRIEF = 100
_LONG = 2_000


def make_files(folder: Path, lines: int) -> list[Path]:
    """Files of so many lines of Python, and two that are none."""
    for number in range(_FILES):
        text = f"only_here_{number} = common\n" + "a.b = c\n" * lines
        (folder / f"source_{number:03}.py").write_text(text)
    (folder / "wrong.py").write_text("def (:\n")
    (folder / "gone.py").symlink_to("nowhere.py")
    return sorted(folder.glob("*.py"))


def test_a_worker_is_killed_and_nothing_is_lost(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    paths = make_files(tmp_path, _LONG)
    assert evener.demo.main(workers=3, kill=True, paths=paths) == 0
    told = capfd.readouterr()
    lines = told.out.splitlines()
    assert "  on a broker and 3 workers, ready after " in told.out
    assert lines[0].startswith(f"indexing the identifiers of {_FILES + 2} Python files, ")
    assert "  wrong.py  line 1: invalid syntax" in lines
    assert "  gone.py   cannot be read: No such file or directory" in lines
    assert f"  {_FILES * _LONG:>9,}  a" in lines
    assert "one process that calls the same function finds the same: " in told.out
    assert lines[-1].endswith("task run again; 0 lost")
    story = ["half-way: worker", "lost      demo.index[", "requeued  at", "replaced  by pid"]
    places = [told.err.find(part) for part in story]
    assert -1 not in places, told.err
    assert places == sorted(places)


def test_without_a_kill_on_a_cluster_that_runs(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    paths = make_files(tmp_path, _BRIEF)
    with evener.LocalCluster("evener.demo.app:app", workers=2) as cluster:
        client = cluster.client()
        wait_until(lambda: client.count_workers(1) == 2, why="the broker to count both")
        assert evener.demo.main(broker=cluster.address, paths=paths) == 0
    told = capfd.readouterr()
    assert f"on the 2 workers of the broker at {cluster.address}" in told.out
    assert told.out.splitlines()[-1].endswith("MB/s); 0 lost")
    assert "SIGKILL" not in told.err


def test_different_totals_are_told_and_fail(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """What runs here finds something else than what runs on the workers."""
    paths = make_files(tmp_path, _BRIEF)
    monkeypatch.setattr("evener.demo.identifiers._FIELDS", {"Name": ("id",)})
    assert evener.demo.main(workers=1, kill=False, paths=paths[1:5]) == 1
    told = capfd.readouterr().out
    assert "the cluster and one process do NOT agree" in told
    assert f"\n  b: {4 * _BRIEF:,} and 0\n" in told


def test_the_example_runs_by_itself(tmp_path: Path, processes: Processes) -> None:
    script = ROOT / "examples" / "identifiers.py"
    make_files(tmp_path, _BRIEF)[0].unlink()  # the file that cannot be read
    process = processes.start(sys.executable, script, tmp_path)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 0, err
    count = f"{_FILES * _BRIEF:>9,}"
    assert sorted(out.splitlines()[:2]) == [f"{count}  a", f"{count}  c"]
    assert err.startswith("not counted: ")
    assert err.endswith("wrong.py: invalid syntax\n")
