"""Ends that are kept for those who ask later, and dead letters."""

from __future__ import annotations

from typing import Any

import msgpack
import pytest

from evener_broker.tables import Bounds
from evener_wire import messages as m
from evener_wire.limits import BUFFERS_MAX
from tests.unit.broker.fake_journal import FakeJournal
from tests.unit.broker.world import CALL, VALUE, Client, World, task_id

_BIG = m.Frames([b"x" * 70_000, b"y" * 10])


def ask(client: Client, what: str, **arguments: Any) -> list[m.Answer]:
    client.inbox.clear()
    client.say(m.Query(7, what, arguments))
    return client.got(m.Answer)


def body(answer: m.Answer) -> Any:
    packed = answer.body
    head = packed if isinstance(packed, bytes) else packed.buffers[0]
    return msgpack.unpackb(head)


def test_an_end_may_be_fetched_by_another_client() -> None:
    world = World()
    agent, client = world.agent(), world.client()
    client.submit(1)
    agent.done(1)
    client.acknowledge()
    (answer,) = ask(world.client("other"), "fetch", id=task_id(1).hex())
    assert answer.ok
    assert body(answer) == [m.TERMINAL_DONE, None, VALUE]


def test_who_fetches_early_waits_for_the_end() -> None:
    world = World()
    agent, client, other = world.agent(), world.client(), world.client("other")
    client.submit(1)
    assert ask(other, "fetch", id=task_id(1)) == []
    agent.done(1)
    (answer,) = other.got(m.Answer)
    assert (answer.number, body(answer)[2]) == (7, VALUE)


def test_an_end_is_fetched_only_once_it_is_on_disk() -> None:
    """I5: also for those who only ask."""
    world = World(journal=FakeJournal())
    agent, client = world.agent(), world.client()
    client.submit(1)
    assert world.journal is not None
    world.journal.auto = False
    agent.done(1)
    assert ask(client, "fetch", id=task_id(1)) == []
    world.commit()
    assert len(client.got(m.Answer)) == 1


def test_who_waits_and_goes_leaves_nothing() -> None:
    world = World()
    agent, client, other = world.agent(), world.client(), world.client("other")
    client.submit(1)
    ask(other, "fetch", id=task_id(1))
    other.say(m.Goodbye("closed"))
    assert world.core.tables.waiting.count == 0
    agent.done(1)
    assert client.end(1) == "done"


def test_who_waits_for_a_task_that_is_taken_back_hears_of_it() -> None:
    world = World(journal=FakeJournal(auto=False))
    client, other = world.client(), world.client("other")
    client.submit(1)
    ask(other, "fetch", id=task_id(1))
    world.fail()
    (answer,) = other.got(m.Answer)
    assert not answer.ok
    assert "journal" in body(answer)


@pytest.mark.parametrize("count", [2, BUFFERS_MAX])
def test_large_ends_come_in_frames(count: int) -> None:
    world = World()
    agent, client = world.agent(), world.client()
    client.submit(1)
    buffers = [b"x" * 200] * count
    result = agent.result(1)
    item = (*result.items[0][:3], m.Frames(buffers), *result.items[0][4:])
    agent.say(m.Result([item]))
    (answer,) = ask(client, "fetch", id=task_id(1))
    assert isinstance(answer.body, m.Frames)
    _, *frames = answer.body.buffers
    assert b"".join(bytes(frame) for frame in frames) == b"".join(buffers)
    if count == BUFFERS_MAX:
        assert body(answer)[3] == [200] * count


@pytest.mark.parametrize("wrong", [None, 7, "xyz", "ab", b"short"])
def test_an_id_that_is_none_is_refused(wrong: Any) -> None:
    (answer,) = ask(World().client(), "fetch", id=wrong)
    assert not answer.ok
    assert body(answer) == "the id of a task has 32 hexadecimal digits"


@pytest.mark.parametrize("what", ["fetch", "show", "call", "purge"])
def test_an_unknown_task_is_said_to_be_unknown(what: str) -> None:
    (answer,) = ask(World().client(), what, id=task_id(9).hex())
    assert not answer.ok
    assert f"no task {task_id(9).hex()}" in body(answer)


def test_show_tells_all_of_a_task() -> None:
    world = World()
    agent, client = world.agent(), world.client()
    client.submit(1, retries=1)
    agent.ends(1, m.FAILED, {"type": "ValueError", "message": "no"})
    world.pass_ms(1_000)
    agent.ends(1, m.FAILED, {"type": "ValueError", "message": "no"})
    (answer,) = ask(client, "show", id=task_id(1).hex())
    view = body(answer)
    assert (view["state"], view["failures"]) == ("failed", 2)
    assert view["facts"]["type"] == "ValueError"
    assert view["call_bytes"] == len(CALL)
    assert any("fail" in line for line in view["story"])


def failed_world() -> tuple[World, Client]:
    world = World()
    agent, client = world.agent(slots=4, functions=("demo.add", "demo.other")), world.client()
    client.submit(1, 2)
    client.submit(3, function="demo.other")
    agent.ends(1, m.FAILED, {"type": "ValueError"})
    agent.ends(3, m.FAILED, {"type": "ValueError"})
    for _ in range(3):
        agent.ends(2, m.LOST, {"signal": 9})
        world.pass_ms(2_000)
    client.acknowledge()
    return world, client


def rows(client: Client, kind: str) -> list[str]:
    (answer,) = ask(client, "ls", kind=kind)
    return [row["id"] for row in body(answer)["rows"]]


def test_dead_letters_are_listed_by_how_they_ended() -> None:
    _, client = failed_world()
    assert rows(client, "failed") == [task_id(1).hex(), task_id(3).hex()]
    assert rows(client, "lost") == [task_id(2).hex()]
    assert rows(client, "expired") == []


def test_dead_letters_are_listed_before_their_client_has_them() -> None:
    world = World()
    agent, client = world.agent(), world.client()
    client.submit(1)
    agent.ends(1, m.FAILED)
    assert rows(client, "failed") == [task_id(1).hex()]


def test_the_call_of_a_dead_letter_is_kept_for_a_retry() -> None:
    _, client = failed_world()
    (answer,) = ask(client, "call", id=task_id(1).hex())
    name, chosen, call = body(answer)
    assert (name, m.Options(*chosen).queue, call) == (
        "demo.add",
        "default",
        CALL,
    )


def test_a_large_call_is_kept_as_well() -> None:
    world = World()
    agent, client = world.agent(), world.client()
    client.submit(1, payload=_BIG)
    agent.ends(1, m.FAILED)
    client.acknowledge()
    (answer,) = ask(client, "call", id=task_id(1).hex())
    assert isinstance(answer.body, m.Frames)
    assert [bytes(b) for b in answer.body.buffers[1:]] == [bytes(b) for b in _BIG.buffers]


def test_what_ended_well_has_no_call_any_more() -> None:
    world = World()
    agent, client = world.agent(), world.client()
    client.submit(1)
    agent.done(1)
    (answer,) = ask(client, "call", id=task_id(1).hex())
    assert not answer.ok
    assert "is done: only what failed, got lost or expired is retried" in body(answer)


@pytest.mark.parametrize(
    ("arguments", "left"),
    [
        ({"state": "lost"}, [1, 3]),
        ({"state": "failed"}, [2]),
        ({"function": "demo.other"}, [1, 2]),
        ({"state": "failed", "function": "demo.add"}, [2, 3]),
        ({"older_ms": 60_000}, [1, 2, 3]),
        ({"id": task_id(1).hex()}, [2, 3]),
        ({"dry_run": True}, [1, 2, 3]),
        ({}, []),
    ],
)
def test_dead_letters_are_purged_by_choice(arguments: dict[str, Any], left: list[int]) -> None:
    world, client = failed_world()
    (answer,) = ask(client, "purge", **arguments)
    assert answer.ok
    chosen = 3 if "dry_run" in arguments else 3 - len(left)
    assert body(answer) == {"purged": chosen}
    kept = [n for n in (1, 2, 3) if world.state(n) != "forgotten"]
    assert kept == left
    world.core.check()


def test_purge_refuses_what_is_no_dead_letter() -> None:
    world = World()
    agent, client = world.agent(), world.client()
    client.submit(1)
    assert not ask(client, "purge", id=task_id(1).hex())[0].ok
    assert not ask(client, "purge", state="done")[0].ok
    assert not ask(client, "purge", older_ms=-1)[0].ok
    agent.done(1)


def test_results_are_kept_within_their_bounds_and_the_oldest_go_first() -> None:
    """I21."""
    world = World(bounds=Bounds(retained_tasks=3, retained_bytes=1_000))
    agent, client = world.agent(), world.client()
    for number in range(6):
        client.submit(number)
        agent.done(number)
        client.acknowledge()
    assert [world.state(n) for n in range(6)] == ["forgotten"] * 3 + ["taken"] * 3


def test_results_are_kept_for_a_time() -> None:
    world = World(bounds=Bounds(retention_ns=5_000_000_000))
    agent, client = world.agent(), world.client()
    client.submit(1)
    agent.done(1)
    client.acknowledge()
    world.pass_ms(4_000)
    assert world.state(1) == "taken"
    world.pass_ms(1_500)
    assert world.state(1) == "forgotten"


def test_dead_letters_stay_when_nobody_comes_for_them() -> None:
    world = World(bounds=Bounds(retention_ns=5_000_000_000))
    agent, client = world.agent(slots=2), world.client()
    client.submit(1, 2)
    client.say(m.Goodbye("closed"))
    agent.done(1)
    agent.ends(2, m.FAILED)
    world.pass_ms(12_000)
    assert [world.state(1), world.state(2)] == ["forgotten", "taken"]
    assert rows(world.client("other"), "failed") == [task_id(2).hex()]


def test_dead_letters_survive_the_broker() -> None:
    world = World(journal=FakeJournal())
    agent, client = world.agent(), world.client()
    client.submit(1)
    agent.ends(1, m.FAILED, {"type": "ValueError"})
    client.acknowledge()
    world.restart()
    other = world.client("other")
    assert rows(other, "failed") == [task_id(1).hex()]
    (answer,) = ask(other, "call", id=task_id(1).hex())
    assert body(answer)[2] == CALL


def test_kept_results_do_not_fill_the_broker() -> None:
    world = World(bounds=Bounds(tasks=2, client_tasks=2))
    agent, client = world.agent(), world.client()
    for number in range(5):
        client.submit(number)
        agent.done(number)
        client.acknowledge()
    assert client.got(m.Rejected) == []


def test_what_went_wrong_for_a_client_that_left_may_be_purged() -> None:
    world = World()
    agent, client = world.agent(slots=2), world.client()
    client.submit(1, 2)
    client.say(m.Goodbye("closed"))
    agent.ends(1, m.FAILED)
    agent.done(2)
    other = world.client("other")
    assert body(ask(other, "purge", state="failed")[0]) == {"purged": 1}
    assert [world.state(1), world.state(2)] == ["forgotten", "done"]


def test_what_went_wrong_for_a_client_that_may_come_back_is_kept() -> None:
    world = World()
    agent, client = world.agent(), world.client()
    client.submit(1)
    client.vanish()
    agent.ends(1, m.FAILED)
    other = world.client("other")
    assert body(ask(other, "purge", state="failed")[0]) == {"purged": 0}
    client.move()
    client.hello()
    assert client.end(1) == "failed"
