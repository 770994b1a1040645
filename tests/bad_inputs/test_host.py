"""T21, T25, T27: the host the broker runs on: its files, its operator, and what runs out."""

from __future__ import annotations

import os
import resource
import socket
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from evener_broker.runtime import RuntimeFiles
from evener_wire import limits
from evener_wire.errors import UsageError
from tests.bad_inputs import zmtp
from tests.bad_inputs.live import Live
from tests.support import Processes, wait_until

# --- T21: files -----------------------------------------------------------------------------------


def test_t21_what_the_broker_writes_is_its_users_alone(live: Live) -> None:
    folder = live.cluster.folder / "run"
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    files = list(folder.iterdir())
    assert files
    assert {stat.S_IMODE(file.stat().st_mode) for file in files} == {0o600}
    # Nothing of it stands in the arguments or the environment, which others may read.
    for name in ("cmdline", "environ"):
        assert b"secret" not in Path(f"/proc/{live.pid}/{name}").read_bytes().lower()


def test_t21_a_folder_that_is_a_link_is_refused(tmp_path: Path) -> None:
    real, link = tmp_path / "real", tmp_path / "link"
    real.mkdir()
    link.symlink_to(real)
    with pytest.raises(UsageError, match="not a folder of this user"):
        RuntimeFiles(link)


def test_t21_links_in_place_of_files_are_not_followed(tmp_path: Path) -> None:
    """Names that can be guessed may be taken: nothing is written through them."""
    victim = tmp_path / "victim"
    victim.write_text("mine")
    folder = tmp_path / "run"
    files = RuntimeFiles(folder)
    (folder / f"epoch.{os.getpid()}.new").symlink_to(victim)
    with pytest.raises(OSError, match="symbolic links"):
        files.next_epoch()
    (folder / f"epoch.{os.getpid()}.new").unlink()
    (folder / "epoch").symlink_to(victim)
    files.next_epoch()
    assert victim.read_text() == "mine"
    assert not (folder / "epoch").is_symlink()


# --- T25: operators -------------------------------------------------------------------------------


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.1"])
def test_t25_an_open_address_needs_a_word(processes: Processes, host: str) -> None:
    process = processes.start(
        sys.executable, "-m", "evener", "broker", "--host", host, "--port", "0"
    )
    _, errors = process.communicate(timeout=30)
    assert process.returncode == 2
    assert "--insecure" in errors
    assert "127.0.0.1" in errors


def test_t25_silence_is_longer_than_some_heartbeats() -> None:
    assert limits.SILENCE_NS > limits.SELF_FENCE_NS >= 3 * limits.HEARTBEAT_NS
    assert limits.RETENTION_NS > 0


def test_t25_two_brokers_on_one_port(live: Live, processes: Processes) -> None:
    process = processes.start(sys.executable, "-m", "evener", "broker", "--port", str(live.port))
    _, errors = process.communicate(timeout=30)
    assert process.returncode != 0
    assert "has this port" in errors


# --- T27: what runs out ---------------------------------------------------------------------------


def test_t27_descriptors_run_out_and_come_back(own: Live) -> None:
    """At the limit new connections wait in the kernel; those that are there go on, then all do."""
    most = own.descriptors() + 40
    before = resource.prlimit(own.pid, resource.RLIMIT_NOFILE)
    resource.prlimit(own.pid, resource.RLIMIT_NOFILE, (most, before[1]))
    made: list[socket.socket] = []
    try:
        for _ in range(100):
            connection = zmtp.connect(own.port)
            connection.sendall(zmtp.GREETING + zmtp.ready())
            made.append(connection)
        wait_until(lambda: own.descriptors() >= most - 1, 10, "the limit")
        assert own.flow is not None
        own.flow.wait_for_more(20)
    finally:
        for connection in made:
            connection.close()
    wait_until(lambda: own.descriptors() < most - 30, 20, "descriptors to be free")
    with zmtp.connect(own.port) as late:
        zmtp.greet(late)
    resource.prlimit(own.pid, resource.RLIMIT_NOFILE, before)


@pytest.mark.parametrize("most", [5, 14, 63])
def test_t27_too_few_descriptors_to_start_end_with_a_message(tmp_path: Path, most: int) -> None:
    """libzmq aborts the process where it cannot have its own, so it is not even begun."""
    code = (
        "import resource, json, sys; from evener_broker.__main__ import main; "
        f"resource.setrlimit(resource.RLIMIT_NOFILE, ({most}, {most})); "
        "sys.exit(main([json.dumps({'port': 0, 'runtime_dir': sys.argv[1]})]))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "run")],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 2, (done.returncode, done.stderr)
    assert f"{most} open files" in done.stderr
    assert "ulimit -n" in done.stderr
