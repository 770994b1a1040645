"""Why a task waits or where it runs: one sentence per case, and the facts behind it."""

from __future__ import annotations

from typing import Any

import pytest

from evener_broker.finding import SEARCHED_MAX
from evener_wire import messages as m
from tests.unit.broker.test_answers import ask
from tests.unit.broker.world import Client, World, task_id

LABEL = "demo.add[00000000]"


def why(client: Client, number: int) -> dict[str, Any]:
    """The answer about the n-th task; its sentence names the task."""
    ok, body = ask(client, "why", id=task_id(number).hex())
    assert ok, body
    assert body["id"] == task_id(number).hex()
    assert body["text"].startswith("demo.") or body["text"].startswith("~")
    assert dict(body)["state"]
    found: dict[str, Any] = body
    return found


def sentence(client: Client, number: int) -> str:
    text: str = why(client, number)["text"]
    return text.partition("] ")[2]


# --- Which task -----------------------------------------------------------------------------------


def test_a_task_that_nobody_knows() -> None:
    client = World().client()
    ok, body = ask(client, "why", id="abcd")
    assert ok
    assert (body["state"], body["reason"]) == ("unknown", "unknown")
    assert body["text"].startswith('no task has an id that begins with "abcd"')


def test_the_beginning_of_an_id_is_enough_if_it_is_the_only_one() -> None:
    world = World()
    client = world.client()
    ids = [b"\xab\xcd\x01" + bytes(13), b"\xab\xcd\x02" + bytes(13)]
    client.say(m.Submit([(subject, "demo.add", b"x", None) for subject in ids]))
    assert ask(client, "why", id="abcd01")[1]["id"] == ids[0].hex()
    assert ask(client, "why", id="abcd0")[1] == (
        f'2 task ids begin with "abcd0": {ids[0].hex()} (demo.add, queued), '
        f"{ids[1].hex()} (demo.add, queued)"
    )


@pytest.mark.parametrize("bad", ["abc", "wxyz", "ABCD", "0" * 33, 5, b"abcd", None])
def test_what_is_no_id(bad: object) -> None:
    ok, text = ask(World().client(), "why", id=bad)
    assert not ok
    assert "4 to 32 hex digits" in text


def test_among_very_many_tasks_the_whole_id_is_wanted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("evener_broker.finding.SEARCHED_MAX", 2)
    assert SEARCHED_MAX > 100_000
    world = World()
    client = world.client()
    client.submit(1, 2, 3)
    assert ask(client, "why", id="0000")[1].startswith("the broker has 3 tasks, too many to search")
    assert why(client, 3)["state"] == "queued"
    world.agent()
    running = bytes.fromhex("ab" * 16)
    client.say(m.Submit([(running, "demo.add", b"", m.Options(priority=9))]))
    world.agent("other")
    assert ask(client, "why", id="ab" * 4)[1]["host"] == "other"
    assert "too many to search" in ask(client, "why", id="ab" * 3)[1]


# --- Held -----------------------------------------------------------------------------------------


def test_held_for_a_retry() -> None:
    world = World()
    agent, client = world.agent(), world.client()
    client.submit(1, retries=3, retry_delay_ms=4_000)
    agent.ends(1, m.FAILED, {"type": "ValueError", "message": "boom", "types": ("ValueError",)})
    answer = why(client, 1)
    assert (answer["state"], answer["reason"], answer["failures"]) == ("held", "retry", 1)
    assert 2_000 <= answer["again_ms"] <= 4_000
    world.pass_ms(1_000)
    later = why(client, 1)
    assert later["again_ms"] == answer["again_ms"] - 1_000
    assert sentence(client, 1) == (
        f"waits {later['again_ms'] / 1000:.1f} s more before it is tried again, after ValueError: "
        f"boom (1 of 4 attempts failed)"
    )
    world.pass_ms(4_000)
    agent.starts(1)
    assert "(attempt 2 of 4, after ValueError: boom (1 of 4 attempts failed))" in sentence(
        client, 1
    )


def test_held_after_workers_died() -> None:
    world = World()
    agent, client = world.agent(), world.client()
    client.submit(1, max_starts=5)
    agent.ends(1, m.LOST, {"reason": "died by SIGKILL"})
    assert "is with host agent" in sentence(client, 1)
    agent.ends(1, m.LOST, {"reason": "died by SIGSEGV"})
    assert sentence(client, 1).endswith(
        "ms more before it is tried again, after its worker died by SIGSEGV (2 workers died of at "
        "most 5)"
    )


def test_held_after_a_timeout_and_after_the_loss_of_a_host() -> None:
    world = World()
    agent, client = world.agent(), world.client()
    client.submit(1, retries=1, timeout_ms=10)
    client.submit(2, max_starts=9)
    agent.ends(1, m.TIMED_OUT)
    assert "after it ran longer than it may (1 of 2 attempts failed)" in sentence(client, 1)
    for _ in range(2):
        agent.starts(2)
        agent.say(m.Goodbye("stopped"))
        agent.hand.clear()
        agent.come_back()
    assert "after its host was lost while it ran (2 workers died of at most 9)" in sentence(
        client, 2
    )


def test_held_after_a_restart() -> None:
    world = World()
    client = world.client()
    client.submit(1, again=True)
    assert why(client, 1)["reason"] == "recovery"
    assert sentence(client, 1).startswith("is held: the broker restarted")
    client.cancel(1)
    assert sentence(client, 1).endswith("to have it cancelled")


# --- Queued ---------------------------------------------------------------------------------------


def test_a_queue_that_nobody_serves() -> None:
    world = World()
    client = world.client()
    client.submit(1, queue="gpu")
    world.pass_ms(1_500)
    assert sentence(client, 1) == (
        "waits since 1.5 s in queue gpu, which no connected worker serves (no worker is connected)"
    )
    world.agent(queues=("reports", "default"))
    answer = why(client, 1)
    assert (answer["reason"], answer["served"]) == ("unserved", ["default", "reports"])
    assert "(workers serve default, reports)" in answer["text"]


def test_a_function_that_nobody_offers() -> None:
    world = World()
    client = world.client()
    client.submit(1, function="demo.ad")
    world.agent(functions=("demo.add", "demo.sub"))
    answer = why(client, 1)
    assert (answer["reason"], answer["closest"][0]) == ("unknown_function", "demo.add")
    assert "no worker there offers demo.ad; the closest are demo.add" in answer["text"]


def test_workers_that_are_still_starting() -> None:
    world = World()
    client = world.client()
    client.submit(1)
    world.agent("host", slots=0, functions=())
    assert why(client, 1)["reason"] == "starting"
    assert sentence(client, 1).endswith("the workers of host host are still starting")


def test_workers_that_all_died_a_moment_ago() -> None:
    world = World()
    agent, client = world.agent("host"), world.client()
    agent.offer(slots=0)
    client.submit(1)
    assert why(client, 1)["reason"] == "starting"
    assert "no worker of host host is ready at the moment" in sentence(client, 1)


def test_agents_that_drain() -> None:
    world = World()
    agent, client = world.agent("host"), world.client()
    agent.offer(draining=True, slots=1)
    client.submit(1)
    assert (why(client, 1)["reason"], why(client, 1)["hosts"]) == ("draining", ["host"])
    assert sentence(client, 1).endswith("host host is draining: nothing new is taken there")


def test_agents_that_are_away() -> None:
    world = World()
    agent, client = world.agent("host"), world.client()
    agent.vanish()
    client.submit(1)
    world.pass_ms(400)
    assert why(client, 1)["reason"] == "disconnected"
    assert sentence(client, 1).endswith(
        "who could run it is away: host host is not connected since 400 ms, and its work goes to "
        "others when it is not back within 1.5 s"
    )


def test_all_workers_are_busy() -> None:
    world = World()
    agent, client = world.agent(slots=2), world.client()
    client.submit(1, 2, 3, 4, 5)
    agent.starts(1, 2)
    world.pass_ms(2_000)
    client.submit(6, priority=9)
    client.submit(7, priority=1)
    answer = why(client, 5)
    assert answer["reason"] == "busy"
    assert answer["workers"]["slots"] == 2
    assert answer["workers"]["oldest"]["since_ms"] == 2_000
    assert answer["in_front"] == {
        "higher_priority": 1,
        "earlier": 2,
        "earlier_exact": True,
        "other_clients": 0,
        "of_other_clients": 0,
    }
    assert sentence(client, 5) == (
        f"waits since 2.0 s in queue default: all 2 workers for it are busy (longest with {LABEL}, "
        f"since 2.0 s); in front of it: 1 of higher priority and 2 earlier of its client"
    )
    assert sentence(client, 6).endswith("since 2.0 s); it is next of its client")
    assert why(client, 7)["in_front"]["higher_priority"] == 4


def test_the_only_worker_is_busy_with_what_came_back_to_its_place() -> None:
    world = World()
    agent, client = world.agent(), world.client()
    client.submit(1, 2, 3, retries=3, retry_delay_ms=1)
    agent.say(agent.result(1, m.FAILED, run_us=1_000_000, facts={"type": "E"}))
    world.pass_ms(5)
    assert world.state(1) == "queued"
    assert why(client, 3)["in_front"]["earlier"] == 1
    assert "its only worker is busy" in sentence(client, 3)


def test_how_long_it_may_still_wait() -> None:
    world = World()
    world.agent()
    client = world.client()
    client.submit(1)
    client.submit(2, expires_ms=5_000, deadline_ms=60_000)
    world.pass_ms(1_000)
    answer = why(client, 2)
    assert (answer["expires_in_ms"], answer["deadline_in_ms"]) == (4_000, 59_000)
    assert answer["text"].endswith(
        "; it expires in 4.0 s if it has not started; its deadline is in 59.0 s"
    )


def test_busy_workers_of_a_host_that_is_silent() -> None:
    world = World()
    agent, client = world.agent("host"), world.client()
    client.submit(1, 2)
    world.pass_ms(2_500, silent=[agent])
    assert "; host host said nothing for 2.5 s" in sentence(client, 2)


def test_turns_of_other_clients() -> None:
    world = World()
    world.agent()
    client, other, third = world.client(), world.client("other"), world.client("third")
    client.submit(1, 2)
    other.submit(11, 12, 13)
    third.submit(21)
    answer = why(client, 2)
    assert answer["in_front"]["other_clients"] == 2
    assert answer["text"].endswith(
        "; it is next of its client, and 2 other clients with 4 tasks take turns"
    )


def test_counting_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("evener_broker.why._LOOKED_AT", 3)
    world = World()
    world.agent()
    client = world.client()
    client.submit(*range(1, 20))
    front = why(client, 19)["in_front"]
    assert (front["earlier"], front["earlier_exact"]) == (3, False)
    assert "at least 3 earlier of its client" in sentence(client, 19)
