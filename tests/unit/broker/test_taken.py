"""What a client took is noted in the journal, soon: the next broker does not keep it for nobody."""

from __future__ import annotations

import sqlite3
import struct
import zlib
from contextlib import closing
from pathlib import Path

import pytest

from evener_broker.journal_damage import VERSION, JournalError
from evener_wire import messages as m
from evener_wire.limits import RETENTION_NS
from tests.unit.broker.journals import CLIENT, Writer, ended, open_journal, reopened, saved
from tests.unit.broker.test_durable import kinds, world_of
from tests.unit.broker.world import World, task_id

# --- The broker -----------------------------------------------------------------------------------


def states(world: World, *numbers: int) -> list[str]:
    return [world.state(number) for number in numbers]


def test_what_a_client_took_is_taken_after_a_restart() -> None:
    world, agent, client = world_of(auto=True)
    client.submit(1, 2)
    agent.done(2)
    client.acknowledge()
    agent.done(1)
    world.pass_ms(1_100)
    world.restart()
    client.ends.clear()
    told = client.hello()
    assert states(world, 1, 2) == ["done", "taken"]
    assert [item[0] for _, t in told if type(t) is m.Terminal for item in t.items] == [task_id(1)]
    record = world.core.tables.clients[client.instance]
    assert (record.ended_tasks, world.core.tables.retained) == (1, 1)


def test_that_alone_has_no_transaction_before_a_second_has_passed() -> None:
    world, agent, client = world_of(auto=True)
    journal = world.journal
    assert journal is not None
    client.submit(1)
    agent.done(1)
    journal.auto = False
    client.acknowledge()
    world.pass_ms(900)
    assert (journal.pending, journal.taken) == ([], {})
    world.pass_ms(200)
    assert [dict(effect.records.taken) for effect in journal.pending] == [{client.instance: 1}]
    world.commit()
    world.pass_ms(2_000)
    assert journal.pending == []


def test_it_goes_with_what_is_written_anyway() -> None:
    world, agent, client = world_of(auto=True)
    journal = world.journal
    assert journal is not None
    client.submit(1)
    agent.done(1)
    client.acknowledge()
    client.submit(2)
    assert journal.taken == {client.instance: 1}


def test_what_was_not_written_yet_is_told_again() -> None:
    world, agent, client = world_of(auto=True)
    client.submit(1)
    agent.done(1)
    client.acknowledge()
    world.restart()
    told = client.hello()
    assert m.Terminal in kinds(told), "the same end; the client ignores it (I2)"
    client.acknowledge()
    assert world.state(1) == "taken"


def test_a_failed_transaction_forgets_nothing_that_was_taken() -> None:
    world, agent, client = world_of(auto=True)
    journal = world.journal
    assert journal is not None
    client.submit(1)
    agent.done(1)
    client.acknowledge()
    journal.auto = False
    world.pass_ms(1_100)
    world.fail()
    world.pass_ms(1_100)
    world.commit()
    assert journal.taken == {client.instance: 1}


def test_who_took_everything_and_left_has_taken_it_after_a_restart() -> None:
    world, agent, client = world_of(auto=True)
    client.submit(1)
    agent.done(1)
    client.acknowledge()
    client.vanish()
    world.restart()
    world.turn()
    assert world.state(1) == "taken"
    assert client.instance not in world.core.tables.clients
    assert world.journal is not None
    assert (world.journal.clients, world.journal.taken) == ({}, {})


def test_who_comes_back_with_new_tasks_does_not_get_the_old_ones_again() -> None:
    world, agent, client = world_of(auto=True)
    client.submit(1)
    agent.done(1)
    client.acknowledge()
    client.vanish()
    client.move()
    client.hello()
    client.submit(2)
    agent.done(2)
    world.restart()
    world.turn()
    assert states(world, 1, 2) == ["taken", "done"]


def test_ends_that_nobody_came_for_are_not_kept_twice_as_long() -> None:
    """What failed is a letter for people then, also for the next broker."""
    world, agent, client = world_of(auto=True)
    client.submit(1, 2)
    agent.ends(1, m.FAILED)
    client.vanish()
    world.pass_ms(RETENTION_NS / 1e6 + 1_100)
    assert states(world, 1, 2) == ["taken", "assigned"]
    world.restart()
    world.turn()
    assert states(world, 1, 2) == ["taken", "held"]
    assert [task.id for task in world.core.tables.letters] == [task_id(1)]


def test_ends_are_told_in_their_order_after_a_restart() -> None:
    """It is the order that tells what was taken."""
    world, agent, client = world_of(auto=True)
    client.submit(1, 2)
    agent.done(2)
    agent.done(1)
    world.restart()
    client.ends.clear()
    told = client.hello()
    items = [item[0] for _, t in told if type(t) is m.Terminal for item in t.items]
    assert items == [task_id(2), task_id(1)]
    client.submit(3)
    agent.come_back()
    agent.done(3)
    assert world.task(3).order == 3, "ends are counted on"


# --- The journal ----------------------------------------------------------------------------------


def test_the_journal_keeps_who_took_what(tmp_path: Path) -> None:
    path = tmp_path / "j"
    with open_journal(path) as journal:
        writer = Writer(journal)
        writer.commit(
            clients=[(CLIENT, "c"), (b"d" * 16, "d")],
            saved=[saved(1), saved(2)],
            ended=[ended(1, order=5), ended(2, order=1 << 40, facts={"n": 1})],
            taken=[(CLIENT, 4), (b"d" * 16, 7)],
        )
        writer.commit(taken=[(CLIENT, 1 << 40)], clients_gone=[b"d" * 16])
    contents = reopened(path)
    assert contents.taken == [(CLIENT, 1 << 40)]
    assert [(task.order, task.facts) for task in contents.tasks] == [(5, None), (1 << 40, {"n": 1})]


@pytest.mark.parametrize(
    "change", ["upto=upto+1", "upto=-1", "upto='x'", "instance=x'00'", "sum=sum+1", "upto=NULL"]
)
def test_a_changed_row_stops_the_start(tmp_path: Path, change: str) -> None:
    path = tmp_path / "j"
    with open_journal(path) as journal:
        Writer(journal).commit(clients=[(CLIENT, "c")], taken=[(CLIENT, 4)])
    with closing(sqlite3.connect(path)) as db:
        db.execute(f"UPDATE taken SET {change}")
        db.commit()
    with pytest.raises(JournalError, match="table taken"):
        reopened(path)


def test_a_journal_of_format_1_is_read_and_made_one_of_today(tmp_path: Path) -> None:
    path = tmp_path / "j"
    with open_journal(path) as journal:
        writer = Writer(journal)
        writer.commit(clients=[(CLIENT, "c")], saved=[saved(1), saved(2)], ended=[ended(1)])
    body = struct.pack("<qIBB", 1, zlib.crc32(b"result", 1), m.TERMINAL_DONE, 0)
    ending = body + struct.pack("<I", zlib.crc32(body))
    with closing(sqlite3.connect(path)) as db:
        db.execute("UPDATE tasks SET ending=? WHERE number=1", (ending,))
        db.execute("DROP TABLE taken")
        db.execute("DROP TABLE paused")
        db.execute("PRAGMA user_version=1")
        db.commit()
    for _ in range(2):
        contents = reopened(path)
        states = [(task.state, task.result, task.order) for task in contents.tasks]
        assert states == [(m.TERMINAL_DONE, b"result", 0), (None, b"", 0)]
        assert (contents.clients, contents.taken) == ([(CLIENT, "c")], [])
    with closing(sqlite3.connect(path)) as db:
        assert db.execute("PRAGMA user_version").fetchone() == (VERSION,)
    with open_journal(path) as journal:
        Writer(journal).commit(taken=[(CLIENT, 1)])
    assert reopened(path).taken == [(CLIENT, 1)]
