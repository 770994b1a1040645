"""What is at the journal's path may be anything: each gets one sentence that says what to do."""

from __future__ import annotations

import os
import sqlite3
import struct
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from evener_broker.journal_damage import EXIT_DAMAGED, EXIT_UNUSABLE, VERSION, JournalError
from tests.support import NOBODY, without_roots_rights
from tests.unit.broker.journals import Writer, open_journal, reopened, saved


def refusal(path: Path) -> JournalError:
    with pytest.raises(JournalError) as raised:
        reopened(path)
    assert str(path) in str(raised.value)
    return raised.value


def test_a_file_that_is_no_database(tmp_path: Path) -> None:
    path = tmp_path / "notes.txt"
    path.write_text("my diary\n" * 1_000)
    assert "is not a journal but some other file" in str(refusal(path))
    assert path.read_text() == "my diary\n" * 1_000


def test_a_database_of_another_program(tmp_path: Path) -> None:
    path = tmp_path / "other.db"
    db = sqlite3.connect(path)
    db.execute("CREATE TABLE t (x)")
    db.close()
    before = path.read_bytes()
    assert "SQLite database of another program" in str(refusal(path))
    assert path.read_bytes() == before


def test_a_journal_from_the_future(tmp_path: Path) -> None:
    path = tmp_path / "j"
    open_journal(path).close()
    with path.open("r+b") as file:
        file.seek(60)
        file.write(struct.pack(">I", VERSION + 1))
    error = refusal(path)
    assert f"has format {VERSION + 1}" in str(error)
    assert "start the newer evener" in str(error)
    assert error.code == EXIT_DAMAGED


def test_a_journal_from_the_future_that_says_so_in_its_log_alone(tmp_path: Path) -> None:
    """The newer broker was killed before it wrote its log back."""
    path = tmp_path / "j"
    open_journal(path).close()
    script = (
        "import os, sqlite3, sys; db = sqlite3.connect(sys.argv[1]); "
        "db.execute('PRAGMA user_version=99'); os._exit(0)"
    )
    subprocess.run([sys.executable, "-c", script, str(path)], check=True, timeout=60)
    files = {name: (tmp_path / name).read_bytes() for name in ("j", "j-wal")}
    error = refusal(path)
    assert error.code == EXIT_DAMAGED
    assert "start the newer evener" in str(error)
    assert {name: (tmp_path / name).read_bytes() for name in files} == files


def test_a_rollback_journal_beside_it(tmp_path: Path) -> None:
    """SQLite would write its content into ours."""
    path = tmp_path / "j"
    open_journal(path).close()
    path.with_name("j-journal").write_bytes(b"evil" * 1_000)
    assert "move it away" in str(refusal(path))


def test_a_journal_in_use(tmp_path: Path) -> None:
    path = tmp_path / "j"
    with open_journal(path) as journal:
        error = refusal(path)
        assert f"is in use by the process with pid {os.getpid()}" in str(error)
        assert error.code == EXIT_UNUSABLE
        Writer(journal).commit(saved=[saved(1)])
    assert len(reopened(path).tasks) == 1


@pytest.mark.parametrize("name", ["a b?mode=ro#x%00", "späte.журнал", "-x", "j-wal"])
def test_any_name_will_do(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    with open_journal(path) as journal:
        Writer(journal).commit(saved=[saved(1)])
    assert len(reopened(path).tasks) == 1
    assert path.exists()


def test_a_link_to_a_journal_elsewhere(tmp_path: Path) -> None:
    (tmp_path / "disk").mkdir()
    path = tmp_path / "disk" / "j"
    open_journal(path).close()
    link = tmp_path / "link"
    link.symlink_to(path)
    with open_journal(link) as journal:
        Writer(journal).commit(saved=[saved(1)])
        with pytest.raises(JournalError, match="in use"):
            open_journal(path)
    assert len(reopened(path).tasks) == 1


def test_no_such_folder(tmp_path: Path) -> None:
    error = refusal(tmp_path / "nowhere" / "j")
    assert "there is no folder" in str(error)
    assert error.code == EXIT_UNUSABLE


def test_a_folder_in_place_of_a_file(tmp_path: Path) -> None:
    assert "directory" in str(refusal(tmp_path)).lower()


def test_a_folder_that_is_not_writable() -> None:
    # Not in `tmp_path`, which others than the tests' user cannot even enter.
    with TemporaryDirectory(prefix="evener-locked-") as made:
        folder = Path(made)
        refusal(folder / "nowhere" / "j")  # loads what it needs
        if os.geteuid() == 0:
            os.chown(folder, NOBODY, NOBODY)
        folder.chmod(0o500)
        with without_roots_rights():
            error = refusal(folder / "j")
        assert "may not read and write" in str(error)


def test_an_older_copy_starts_a_newer_epoch(tmp_path: Path) -> None:
    """A backup put back is taken for what it is; what it knows is old, its epoch is not."""
    path = tmp_path / "j"
    open_journal(path, at_least_epoch=10).close()
    old = path.read_bytes()
    open_journal(path, at_least_epoch=20).close()
    path.write_bytes(old)
    with open_journal(path, at_least_epoch=21) as journal:
        assert journal.epoch == 21
