"""The journal gives back what was committed, whole and in order, and shares commits (I5, I29)."""

from __future__ import annotations

import select
import sqlite3
import threading
from pathlib import Path
from typing import Any

import pytest

from evener_broker import journal_rows
from evener_broker.effects import Append
from evener_broker.journal_store import Store
from evener_broker.journaling import KeptTask, Records
from evener_wire import messages as m
from evener_wire.errors import UsageError
from tests.unit.broker.journals import (
    BYTES_MAX,
    CLIENT,
    Writer,
    ended,
    id_of,
    open_journal,
    reopened,
    saved,
    tried,
)

OPTIONS = m.Options("späte", 9, 3, 250, ("ValueError", "app.Error"), 2, 1_000, 2_000, 3_000, True)
FACTS = {
    "exit": -9,
    "text": "x" * 5_000,
    "share": 0.5,
    "raw": b"\0\xff",
    "none": None,
    "yes": True,
    "lines": ("a", 1),
}
PAYLOADS = [
    b"",
    b"small",
    b"\0" * 65_536,
    m.Frames((b"one" * 100_000,)),
    m.Frames((b"a", b"", b"b" * 70_000)),
    m.Frames((memoryview(bytearray(b"view")), b"x")),
    m.Frames(()),
]


def test_a_new_journal_is_empty_and_private(tmp_path: Path) -> None:
    path = tmp_path / "tasks.journal"
    with open_journal(path) as journal:
        contents = journal.take_contents()
        assert journal.epoch == 1
        assert (contents.accepted, contents.bytes_max) == (0, BYTES_MAX)
        assert (contents.clients, contents.agents, contents.tasks) == ([], [], [])
        assert 0 < contents.bytes_used < 100_000
    assert path.stat().st_mode & 0o777 == 0o600
    assert [entry.name for entry in tmp_path.iterdir() if entry.is_file()] == ["tasks.journal"]


def test_every_field_comes_back(tmp_path: Path) -> None:
    path = tmp_path / "j"
    with open_journal(path) as journal:
        writer = Writer(journal)
        writer.commit(
            clients=[(CLIENT, "ein-client"), (b"d" * 16, "other")],
            agents=[(b"a" * 16, "agent")],
            saved=[saved(1, options=OPTIONS, function="späte.arbeit", digest=2**32), saved(2)],
        )
        writer.commit(tried=[tried(1, starts=3, failures=2, returns=7, dispatched=True)])
        writer.commit(ended=[ended(1, state=m.TERMINAL_LOST, facts=FACTS, keep_call=True)])
    contents = reopened(path)
    assert contents.accepted == 2
    assert sorted(contents.clients) == [(CLIENT, "ein-client"), (b"d" * 16, "other")]
    assert contents.agents == [(b"a" * 16, "agent")]
    first = KeptTask(
        1,
        id_of(1),
        CLIENT,
        "späte.arbeit",
        OPTIONS,
        b"call",
        2**32,
        3,
        2,
        7,
        True,
        m.TERMINAL_LOST,
        b"result",
        FACTS,
    )
    second = KeptTask(
        2,
        id_of(2),
        CLIENT,
        "work.add",
        m.DEFAULT_OPTIONS,
        b"call",
        14,
        0,
        0,
        0,
        False,
        None,
        b"",
        None,
    )
    assert contents.tasks == [first, second]
    assert contents.tasks[1].options is m.DEFAULT_OPTIONS


@pytest.mark.parametrize("payload", PAYLOADS, ids=repr)
def test_payloads_come_back_as_they_were(tmp_path: Path, payload: m.Payload) -> None:
    path = tmp_path / "j"
    with open_journal(path) as journal:
        writer = Writer(journal)
        writer.commit(saved=[saved(1, payload), saved(2)])
        writer.commit(ended=[ended(2, payload)])
    open_task, ended_task = reopened(path).tasks
    assert open_task.call == payload
    assert type(open_task.call) is type(payload)
    assert ended_task.result == payload
    assert ended_task.call is None, "the call of a task that ended is not kept unasked"


def test_payloads_too_large_for_a_row_are_kept_in_parts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(journal_rows, "PART_BYTES", 1_000)
    large = [m.Frames((bytes([n]) * 2_500, b"", b"x" * 999)) for n in range(8)]
    path = tmp_path / "j"
    with open_journal(path) as journal:
        writer = Writer(journal)
        writer.commit(saved=[saved(n, large[n]) for n in range(1, 6)])
        writer.commit(ended=[ended(1, large[7]), ended(2, large[6], keep_call=True), ended(3)])
        writer.commit(forgotten=[4])
    with open_journal(path) as journal:
        tasks = {task.number: task for task in journal.take_contents().tasks}
        assert [(n, tasks[n].call, tasks[n].result) for n in tasks] == [
            (1, None, large[7]),
            (2, large[2], large[6]),
            (3, None, b"result"),
            (5, large[5], b""),
        ]
        writer = Writer(journal)
        writer.commit(ended=[ended(5)], forgotten=[1, 2])
    db = sqlite3.connect(path)
    try:
        assert db.execute("SELECT count(*) FROM parts").fetchone() == (0,)
    finally:
        db.close()


def test_what_is_forgotten_is_gone_and_its_number_is_not_used_again(tmp_path: Path) -> None:
    path = tmp_path / "j"
    with open_journal(path) as journal:
        writer = Writer(journal)
        writer.commit(clients=[(CLIENT, "c")], agents=[(b"a" * 16, "a")])
        writer.save([1, 2, 3])
        writer.commit(ended=[ended(3)], forgotten=[2, 3])
        writer.commit(clients_gone=[CLIENT], agents_gone=[b"a" * 16, b"b" * 16])
    contents = reopened(path)
    assert [task.number for task in contents.tasks] == [1]
    assert (contents.accepted, contents.clients, contents.agents) == (3, [], [])


def test_writing_the_same_again_changes_nothing(tmp_path: Path) -> None:
    path = tmp_path / "j"
    everything: dict[str, Any] = {
        "clients": [(CLIENT, "c")],
        "agents": [(b"a" * 16, "a")],
        "saved": [saved(1), saved(2, m.Frames((b"x",))), saved(3)],
        "tried": [tried(2)],
        "ended": [ended(1)],
        "forgotten": [3],
    }
    with open_journal(path) as journal:
        Writer(journal).commit(**everything)
    once = reopened(path)
    with open_journal(path) as journal:
        Writer(journal).commit(**everything)
    again = reopened(path)
    assert (again.tasks, again.clients, again.agents) == (once.tasks, once.clients, once.agents)


def test_a_client_that_left_and_came_back_is_known(tmp_path: Path) -> None:
    path = tmp_path / "j"
    with open_journal(path) as journal:
        writer = Writer(journal)
        writer.commit(clients=[(CLIENT, "c")])
        writer.commit(clients=[(CLIENT, "c")], clients_gone=[CLIENT])
    assert reopened(path).clients == [(CLIENT, "c")]


def test_epochs_only_grow(tmp_path: Path) -> None:
    path = tmp_path / "j"
    for at_least, epoch in ((0, 1), (0, 2), (1_000, 1_000), (7, 1_001)):
        with open_journal(path, at_least_epoch=at_least) as journal:
            assert journal.epoch == epoch


def test_turns_share_a_commit_while_one_is_under_way(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    reached, go_on = threading.Event(), threading.Event()
    commit = Store.commit

    def slow(store: Store) -> None:
        reached.set()
        assert go_on.wait(30)
        commit(store)

    path = tmp_path / "j"
    with open_journal(path) as journal:
        monkeypatch.setattr(Store, "commit", slow)
        writer = Writer(journal)
        writer.save([1])
        assert reached.wait(30)
        for number in (2, 3, 4):
            writer.save([number])
        assert journal.take_events() == [], "nothing is told before it is on disk"
        go_on.set()
        writer.settle()
        assert writer.committed == [1, 4], "three turns are one commit"
    assert [task.number for task in reopened(path).tasks] == [1, 2, 3, 4]


def test_its_descriptor_is_readable_only_while_there_is_news(tmp_path: Path) -> None:
    with open_journal(tmp_path / "j") as journal:
        writer = Writer(journal)
        assert not select.select([journal.fd], [], [], 0)[0]
        writer.commit(saved=[saved(1)])
        assert not select.select([journal.fd], [], [], 0)[0]
        assert journal.take_events() == []


def test_closing_finishes_what_was_appended(tmp_path: Path) -> None:
    path = tmp_path / "j"
    journal = open_journal(path)
    for txn in range(1, 50):
        journal.append(Append(txn, Records(saved=[saved(txn)])))
    journal.close()
    journal.close()
    assert len(reopened(path).tasks) == 49
    assert not path.with_name("j-wal").exists()


def test_the_log_is_written_back_and_the_file_shrinks_again(tmp_path: Path) -> None:
    path = tmp_path / "j"
    numbers = range(1, 49)
    with open_journal(path, 256 << 20) as journal:
        writer = Writer(journal)
        for number in numbers:
            writer.commit(saved=[saved(number, m.Frames((bytes(1 << 20),)))])
        assert path.with_name("j-wal").stat().st_size < 20 << 20
        assert writer.bytes_used > 48 << 20
        writer.commit(forgotten=list(numbers))
        assert writer.bytes_used < 1 << 20
        for number in range(100, 170):  # traffic of other tasks, which come and go
            writer.commit(saved=[saved(number, m.Frames((bytes(1 << 20),)))])
            writer.commit(forgotten=[number])
    assert path.stat().st_size < 20 << 20


def test_it_is_a_plain_sqlite_file(tmp_path: Path) -> None:
    path = tmp_path / "j"
    with open_journal(path) as journal:
        Writer(journal).commit(saved=[saved(1)])
    db = sqlite3.connect(path)
    try:
        assert db.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        assert db.execute("SELECT number, call FROM tasks").fetchall() == [(1, b"call")]
    finally:
        db.close()


def test_too_small_a_bound_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="at least 1048576 bytes"):
        open_journal(tmp_path / "j", 1_000)
    assert not (tmp_path / "j").exists()


def test_facts_that_could_not_be_read_back_do_not_spoil_the_journal(tmp_path: Path) -> None:
    path = tmp_path / "j"
    with open_journal(path) as journal:
        writer = Writer(journal)
        writer.save([1, 2])
        nested: Any = {"nested": {"deep": [1]}}
        writer.commit(ended=[ended(1, facts=nested), ended(2, facts={"large": 2**70})])
    for task in reopened(path).tasks:
        assert task.facts is not None
        assert str(task.facts["facts"]).startswith("not kept: ")
