"""One file of settings for a cluster, its commands and its programs: real processes read it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from tests.integration.cli_cluster import APP, READY
from tests.support import Processes, free_port, wait_until

FILE = """
[broker]
port = {port}
journal = "tasks.journal"

[worker]
app = "demo_app:app"
workers = 2
name = "by-file"
drain = "10s"

[client]
broker = "127.0.0.1:{port}"

[log]
format = "plain"
"""

PROGRAM = """
import evener
with evener.Client() as client:
    print(client.durable, client.submit("demo.add", 1, 2).result())
"""


def run(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *arguments],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_a_cluster_its_commands_and_programs_by_one_file(
    processes: Processes, tmp_path: Path
) -> None:
    (tmp_path / "demo_app.py").write_text(APP)
    (tmp_path / "evener.toml").write_text(FILE.format(port=free_port()))
    errors = tmp_path / "errors.txt"
    with errors.open("w") as stderr:
        up = processes.start(
            *(sys.executable, "-m", "evener", "up"),
            cwd=tmp_path,
            stdout=subprocess.DEVNULL,
            stderr=stderr,
        )
    wait_until(lambda: READY in errors.read_text(), 30, "the banner")
    assert (tmp_path / "tasks.journal").exists()
    assert "by-file" in run(tmp_path, "-m", "evener", "ls", "hosts").stdout
    assert run(tmp_path, "-m", "evener", "submit", "demo.add", "2", "3", "--wait").stdout == "5\n"
    assert run(tmp_path, "-c", PROGRAM).stdout == "True 3\n"
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    named = ("--config", "../evener.toml")
    assert run(elsewhere, "-m", "evener", *named, "ping").returncode == 0
    assert run(elsewhere, "-m", "evener", "ping", *named).returncode == 0
    up.terminate()
    assert up.wait(20) == 0, errors.read_text()
