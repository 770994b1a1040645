"""Pauses of schedules: with a journal they outlive the broker, and are told when on disk."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

import msgpack
import pytest

from evener_broker.journal_damage import JournalError
from evener_wire import messages as m
from tests.unit.broker.fake_journal import FakeJournal
from tests.unit.broker.journals import Writer, open_journal, reopened
from tests.unit.broker.schedule_clock import NAME, Clock, every, ids

DAY_S = 24 * 3_600


def test_it_stays_paused_over_restarts_until_somebody_resumes_it() -> None:
    clock = Clock(FakeJournal())
    agent = clock.agent(every())
    assert clock.ask(NAME, "pause")[0]
    for number in range(2):
        clock.world.restart()
        clock.tell()
        agent = clock.agent(every(), name=f"agent {number}")
        clock.pass_s(130)
        assert ids(agent) == []
        assert clock.schedule().paused
    assert clock.ask(NAME, "resume")[1]["state"] == "active"
    clock.world.restart()
    clock.tell()
    agent = clock.agent(every(), name="the last")
    clock.pass_s(61)
    assert len(ids(agent)) == 1


def test_without_a_journal_it_ends_with_the_broker() -> None:
    clock = Clock()
    clock.agent(every())
    assert clock.ask(NAME, "pause")[1]["state"] == "paused"
    clock.world.restart()
    clock.tell()
    agent = clock.agent(every(), name="another")
    clock.pass_s(61)
    assert len(ids(agent)) == 1


def test_it_belongs_to_the_name_whatever_the_schedule_becomes() -> None:
    clock = Clock(FakeJournal())
    clock.agent(every())
    clock.ask(NAME, "pause")
    clock.world.restart()
    clock.tell()
    agent = clock.agent(every(ms=30_000), name="another")
    clock.pass_s(61)
    assert ids(agent) == []


def test_it_is_told_once_it_is_on_disk() -> None:
    journal = FakeJournal()
    clock = Clock(journal)
    clock.agent(every())
    client = clock.world.client("asker")
    journal.auto = False
    told = client.say(m.Query(1, "schedule", {"name": NAME, "do": "pause"}))
    assert [message for _, message in told if type(message) is m.Answer] == []
    (answer,) = [it for _, it in clock.world.commit() if type(it) is m.Answer]
    assert type(answer.body) is bytes
    assert msgpack.unpackb(answer.body)["state"] == "paused"


def test_while_the_journal_cannot_be_written_it_is_refused() -> None:
    journal = FakeJournal()
    clock = Clock(journal)
    clock.agent(every())
    journal.auto = False
    client = clock.world.client("asker")
    assert client.say(m.Query(1, "schedule", {"name": NAME, "do": "pause"})) == []
    clock.world.fail()
    ok, text = clock.ask(NAME, "resume")
    assert (ok, "cannot write its journal" in text) == (False, True)
    assert clock.schedule().paused, "what was asked for before is written as soon as it can be"


def test_what_nobody_offers_any_more_is_forgotten_after_a_day() -> None:
    journal = FakeJournal()
    clock = Clock(journal)
    clock.agent(every())
    clock.ask(NAME, "pause")
    clock.world.restart()
    clock.tell()
    assert journal.paused == {NAME}
    clock.pass_s(DAY_S + 120)
    assert journal.paused == set()


def test_the_file_has_the_names(tmp_path: Path) -> None:
    path = tmp_path / "journal"
    with open_journal(path) as journal:
        writer = Writer(journal)
        writer.commit(pauses=[("b", True), ("a", True), ("c", True), ("c", False)])
        writer.commit(pauses=[("a", False), ("a", True)])
    assert reopened(path).paused == ["a", "b"]
    with open_journal(path) as journal:
        Writer(journal).commit(pauses=[("a", False)])
    assert reopened(path).paused == ["b"]


@pytest.mark.parametrize(
    ("change", "what"),
    [
        ("UPDATE paused SET name='x'", "differ"),
        ("UPDATE paused SET sum=0", "differ"),
        ("UPDATE paused SET name=' '", "not a name"),
        ("UPDATE paused SET name=x'00'", "not a name"),
    ],
)
def test_a_row_that_is_damaged_stops_the_start(tmp_path: Path, change: str, what: str) -> None:
    path = tmp_path / "journal"
    with open_journal(path) as journal:
        Writer(journal).commit(pauses=[("a", True)])
    with closing(sqlite3.connect(path)) as db:
        db.execute(change)
        db.commit()
    with pytest.raises(JournalError, match=f"table paused: .*{what}"):
        reopened(path)


def test_a_journal_of_format_2_is_taken_over(tmp_path: Path) -> None:
    path = tmp_path / "journal"
    with open_journal(path):
        pass
    with closing(sqlite3.connect(path)) as db:
        db.execute("DROP TABLE paused")
        db.execute("PRAGMA user_version=2")
        db.commit()
    assert reopened(path).paused == []
    with open_journal(path) as journal:
        Writer(journal).commit(pauses=[("a", True)])
    assert reopened(path).paused == ["a"]
