"""Answers to questions: what they show, what they are cut at, and that asking changes nothing."""

from __future__ import annotations

from typing import Any

import msgpack
import pytest

from evener_wire import messages as m
from tests.unit.broker.world import Client, World

KINDS = ("tasks", "workers", "hosts", "queues", "clients", "functions")


def ask(client: Client, what: str, **arguments: Any) -> tuple[bool, Any]:
    client.inbox.clear()
    client.say(m.Query(7, what, arguments))
    (answer,) = client.got(m.Answer)
    assert answer.number == 7
    body = answer.body.buffers[0] if isinstance(answer.body, m.Frames) else answer.body
    return answer.ok, msgpack.unpackb(body)


def busy() -> tuple[World, Client]:
    """A little of everything: tasks in all open states, one that ended, an unserved queue."""
    world = World(epoch=5)
    agent, client = world.agent("host", slots=3), world.client("asking")
    client.submit(1, 2, 3, 4)
    client.submit(5, queue="gpu")
    client.submit(6, again=True)
    agent.say(
        m.Started([(b"\0" * 15 + b"\1", agent.fence(1))]), m.Heartbeat([], ({"pid": 9}, {"pid": 8}))
    )
    agent.ends(3, m.FAILED, {"type": "E", "message": "no"})
    return world, client


def test_status_shows_everything_at_once() -> None:
    _, client = busy()
    ok, body = ask(client, "status")
    assert ok
    assert body["broker"]["epoch"] == 5
    assert body["broker"]["accepted"] == 6
    counts = {state: count for state, count in body["tasks"].items() if count}
    assert counts == {"held": 1, "queued": 1, "assigned": 2, "running": 1, "failed": 1}
    assert {name: len(body[name]) for name in KINDS if name != "tasks"} == {
        "workers": 2,
        "hosts": 1,
        "queues": 2,
        "clients": 1,
        "functions": 1,
    }
    assert [queue["name"] for queue in body["unserved"]] == ["gpu"]


def test_tasks_can_be_listed_by_state_and_by_id() -> None:
    world, client = busy()
    ok, body = ask(client, "ls", kind="tasks", state="running")
    assert ok
    (row,) = body["rows"]
    assert body["total"] == 6
    assert row["id"] == "0" * 31 + "1"
    assert (row["host"], row["attempt"], row["queue"]) == ("host", 1, "default")
    _, body = ask(client, "ls", kind="tasks", id="0" * 31 + "3")
    (row,) = body["rows"]
    assert (row["state"], row["failures"], row["facts"]["type"]) == ("failed", 1, "E")
    assert world.task(3).state.value == "failed"


def test_hosts_queues_clients_and_functions_have_their_facts() -> None:
    world, client = busy()
    world.pass_ms(700)
    rows = {kind: ask(client, "ls", kind=kind)[1]["rows"] for kind in KINDS}
    (host,) = rows["hosts"]
    assert (host["name"], host["slots"], host["held"], host["running"]) == ("host", 3, 3, 1)
    assert (host["connected"], host["draining"], host["silent_ms"]) == (True, False, 700)
    assert [(q["name"], q["waiting"], q["agents"]) for q in rows["queues"]] == [
        ("default", 0, 1),
        ("gpu", 1, 0),
    ]
    assert rows["queues"][1]["oldest_ms"] == 700
    assert [(c["name"], c["open"], c["unfetched"]) for c in rows["clients"]] == [("asking", 5, 1)]
    assert [(f["name"], f["hosts"], f["failed"]) for f in rows["functions"]] == [("demo.add", 1, 1)]
    assert [(w["host"], w["pid"]) for w in rows["workers"]] == [("host", 9), ("host", 8)]


def test_a_host_that_is_away_for_a_moment_is_shown_as_such() -> None:
    world, client = busy()
    world.peers[0].vanish()
    _, body = ask(client, "ls", kind="hosts")
    assert (body["rows"][0]["connected"], body["rows"][0]["silent_ms"]) == (False, None)


@pytest.mark.parametrize("kind", KINDS)
def test_lists_are_cut_at_the_limit_and_say_how_many_there_are(kind: str) -> None:
    _, client = busy()
    ok, body = ask(client, "ls", kind=kind, limit=1)
    assert ok
    assert len(body["rows"]) == 1
    assert body["total"] >= 1
    assert body["kind"] == kind


def test_long_answers_travel_as_frames() -> None:
    world = World()
    client = world.client()
    client.submit(*range(1_500))
    ok, body = ask(client, "ls", kind="tasks", limit=1_000)
    assert ok
    assert len(body["rows"]) == 1_000


@pytest.mark.parametrize("limit", [0, -1, 1_001, 1.0, True, "9", None])
def test_a_limit_that_is_none_is_refused(limit: Any) -> None:
    _, client = busy()
    ok, text = ask(client, "ls", kind="tasks", limit=limit)
    assert (ok, text) == (False, "limit is not within 1 to 1000")


@pytest.mark.parametrize("kind", ["task", None, 3])
def test_an_unknown_list_is_refused_with_those_there_are(kind: Any) -> None:
    _, client = busy()
    ok, text = ask(client, "ls", kind=kind)
    assert not ok
    assert all(name in text for name in KINDS)


def test_an_unknown_question_is_refused_with_those_there_are() -> None:
    _, client = busy()
    assert ask(client, "statsu") == (
        False,
        (
            'the broker cannot answer "statsu"; it knows call, care, drain, fetch, logs, ls, '
            "ping, purge, restart, scale, schedule, show, stack, status, why"
        ),
    )


def test_odd_arguments_do_no_harm() -> None:
    _, client = busy()
    for arguments in ({"state": 5}, {"id": 7}, {"state": b"x", "id": None}, {"other": ("a", 1)}):
        ok, _ = ask(client, "ls", kind="tasks", **arguments)
        assert ok


def test_asking_changes_nothing() -> None:
    world, client = busy()
    before = repr(world.core), dict(world.core.tables.counters)
    ask(client, "status")
    ask(client, "ls", kind="tasks")
    assert (repr(world.core), dict(world.core.tables.counters)) == before


def test_a_task_tells_its_story() -> None:
    world = World()
    agent, client = world.agent(), world.client()
    client.submit(1, retries=1)
    agent.ends(1, m.FAILED)
    steps = [line.partition(" ")[2] for line in world.core.tables.story(b"\0" * 15 + b"\1")]
    assert steps == ["queued -- assign", "assigned -- retry"]


def test_tasks_of_one_state_and_one_id_are_found_without_a_walk(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Of a million tasks only the oldest are looked at, but these are found whatever there is."""
    monkeypatch.setattr("evener_broker.answers.SEARCHED_MAX", 0)
    _, client = busy()
    assert ask(client, "ls", kind="tasks")[1]["rows"] == []
    (running,) = ask(client, "ls", kind="tasks", state="running")[1]["rows"]
    assert running["id"] == f"{1:032x}"
    (waiting,) = ask(client, "ls", kind="tasks", id=f"{5:032x}")[1]["rows"]
    assert waiting["queue"] == "gpu"
    assert ask(client, "ls", kind="tasks", id=f"{77:032x}")[1]["rows"] == []
