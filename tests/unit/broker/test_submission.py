"""Submission: every task is accepted or refused, once, and what is accepted keeps its options."""

from __future__ import annotations

import pytest

from evener_broker.tables import Bounds
from evener_wire import messages as m
from evener_wire.limits import BROKER_QUEUES_MAX
from tests.unit.broker.world import CALL, Told, World, options, task_id


def refusals(told: Told) -> list[tuple[bytes, str, str]]:
    return [item for _, message in told if type(message) is m.Rejected for item in message.items]


def test_a_batch_is_accepted_by_one_message_and_sent_by_one() -> None:
    world = World()
    agent, client = world.agent(slots=3), world.client()
    told = client.submit(1, 2, 3)
    fence = m.fence_of(1, 1)
    run = m.Run([(task_id(n), fence, "demo.add", CALL, 0, 0) for n in (1, 2, 3)])
    assert told == [(agent, run), (client, m.Accepted(1))]


def test_several_submits_in_one_step_are_accepted_together() -> None:
    world = World()
    client = world.client()
    submits = [m.Submit([(task_id(n), "demo.add", CALL, None)]) for n in range(3)]
    assert client.say(*submits) == [(client, m.Accepted(3))]


def test_the_same_task_twice_is_one_task() -> None:
    """I4: whether it waits, runs, or ended."""
    world = World()
    client = world.client()
    assert client.submit(1) == [(client, m.Accepted(1))]
    assert client.submit(1) == [(client, m.Accepted(2))]
    agent = world.agent()
    assert client.submit(1) == [(client, m.Accepted(3))]
    agent.done(1)
    assert client.submit(1) == [(client, m.Accepted(4))]
    assert world.core.tables.accepted == 1
    assert client.end(1) == "done"
    assert client.submit(1, again=True) == [(client, m.Accepted(5))]


@pytest.mark.parametrize("ended", [False, True])
def test_the_same_id_with_another_call_is_a_conflict_and_changes_nothing(ended: bool) -> None:
    """I4."""
    world = World()
    agent, client = world.agent(functions=["demo.add", "demo.mul"]), world.client()
    client.submit(1)
    if ended:
        agent.done(1)
    expected = [(task_id(1), "conflict", "another task has this id")]
    assert refusals(client.submit(1, payload=b"\x90")) == expected
    assert refusals(client.submit(1, function="demo.mul")) == expected
    assert world.state(1) == ("done" if ended else "assigned")
    assert world.counter("tasks_conflicting") == 2


def test_another_clients_id_is_a_conflict_and_tells_nothing_of_its_task() -> None:
    """I3: nobody else ever receives a task's end."""
    world = World()
    agent, first, second = world.agent(), world.client("first"), world.client("second")
    first.submit(1)
    told = second.submit(1)
    assert refusals(told) == [(task_id(1), "conflict", "another task has this id")]
    agent.done(1)
    assert first.end(1) == "done"
    assert second.end(1) == "open"


def test_refusals_come_before_the_acceptance_that_covers_them() -> None:
    """I6."""
    world = World(bounds=Bounds(client_tasks=1))
    client = world.client()
    told = client.submit(1, 2)
    assert [type(message) for _, message in told] == [m.Rejected, m.Accepted]
    assert world.counter("tasks_rejected") == 1


@pytest.mark.parametrize(
    ("bounds", "fit"),
    [
        (Bounds(client_tasks=2), 2),
        (Bounds(tasks=2), 2),
        (Bounds(client_bytes=25), 2),
        (Bounds(payload_bytes=30), 3),
    ],
)
def test_a_full_broker_refuses_by_count_and_by_bytes(bounds: Bounds, fit: int) -> None:
    """I21: at the bound the answer is a refusal, never growth."""
    world = World(bounds=bounds)
    client = world.client()
    refused = refusals(client.submit(1, 2, 3, 4, payload=bytes(10)))
    assert [item[:2] for item in refused] == [(task_id(n), "queue_full") for n in range(fit + 1, 5)]
    assert f"{fit * 10} bytes" in refused[0][2]


def test_one_full_client_leaves_room_for_others() -> None:
    """I22."""
    world = World(bounds=Bounds(client_tasks=1))
    first, second = world.client("first"), world.client("second")
    first.submit(1)
    assert refusals(first.submit(2))
    assert not refusals(second.submit(3))


def test_ends_that_the_client_did_not_take_count_as_its_tasks() -> None:
    """I21: results that nobody fetches are bounded like tasks."""
    world = World(bounds=Bounds(client_tasks=1))
    agent, client = world.agent(), world.client()
    client.submit(1)
    agent.done(1)
    assert refusals(client.submit(2))
    client.acknowledge()
    assert not refusals(client.submit(2))


def test_a_full_client_may_still_repeat_what_was_accepted() -> None:
    world = World(bounds=Bounds(client_tasks=1))
    client = world.client()
    client.submit(1)
    assert client.submit(1) == [(client, m.Accepted(2))]


def test_names_made_up_by_clients_are_bounded() -> None:
    """I21: queues that nobody uses any more make room."""
    world = World()
    client = world.client()
    items = [
        (task_id(number), "demo.add", CALL, options(queue=f"q{number}"))
        for number in range(BROKER_QUEUES_MAX)
    ]
    assert not refusals(client.say(m.Submit(items)))
    assert refusals(client.submit(9_999, queue="one-more"))[0][1] == "queue_full"
    client.cancel(7)
    assert not refusals(client.submit(9_999, queue="one-more"))
    assert len(world.core.tables.queues) <= BROKER_QUEUES_MAX


def test_an_unknown_function_is_refused_with_the_closest_names() -> None:
    world = World()
    world.agent(slots=4, functions=["demo.add", "demo.sub", "other.thing"])
    client = world.client()
    ((subject, code, text),) = refusals(client.submit(1, function="demo.ad"))
    assert (subject, code) == (task_id(1), "unknown_function")
    assert text == (
        'no worker knows "demo.ad". Closest: demo.add, demo.sub. Known on 4 workers: 3 functions '
        "(evener ls functions). Did you restart the workers after adding it?"
    )
    client.submit(2, 3, function="other.thing")
    client.submit(4, function="demo.ad", payload=b"")
    ((told,), (one,)) = [message.details for message in client.got(m.Rejected)]
    assert told == one == {"closest": ("demo.add", "demo.sub"), "workers": 4, "functions": 3}
    assert "demo.ad" not in world.core.tables.functions, "refused names are not remembered (I21)"


def test_facts_stand_beside_the_refusal_that_they_are_of() -> None:
    world = World()
    world.agent(functions=["demo.add"])
    client = world.client()
    client.submit(1)
    item = (task_id(1), "demo.add", b"another call", None)
    unknown = (task_id(2), "demo.ad", CALL, None)
    client.say(m.Submit([item, unknown, item], again=False))
    (told,) = client.got(m.Rejected)
    assert [code for _, code, _ in told.items] == ["conflict", "unknown_function", "conflict"]
    assert [facts and facts["closest"] for facts in told.details] == [None, ("demo.add",)]


def test_many_refusals_stay_within_what_a_client_accepts() -> None:
    """The world decodes all that the broker sends: no head outgrows its bound."""
    world = World()
    world.agent(functions=["demo." + "a" * 120 + str(n) for n in range(3)])
    client = world.client()
    told = client.submit(*range(2_000), function="demo." + "a" * 122)
    assert len(refusals(told)) == 2_000


def test_a_function_waits_when_no_agent_of_its_queue_is_there_yet() -> None:
    world = World()
    client = world.client()
    assert client.submit(1) == [(client, m.Accepted(1))]
    agent = world.agent()
    assert agent.numbers() == [1]


def test_a_function_of_another_queue_is_known() -> None:
    world = World()
    world.agent("a", functions=["demo.sub"])
    world.agent("b", functions=["demo.add"], queues=["other"])
    client = world.client()
    assert client.submit(1) == [(client, m.Accepted(1))]


def test_a_function_that_waited_in_vain_fails_after_a_while_with_the_closest_names() -> None:
    world = World()
    client = world.client()
    client.submit(1, function="demo.ad")
    world.agent(functions=["demo.add"])
    world.pass_ms(4_999)
    assert world.state(1) == "queued"
    world.pass_ms(2)
    assert client.end(1) == "failed"
    facts = client.facts(1)
    assert facts["reason"] == "unknown_function"
    assert facts["closest"] == ("demo.add",)
    assert 'no worker knows "demo.ad"' in facts["text"]


def test_a_function_that_ran_before_is_only_away() -> None:
    """The restart of one agent does not fail what it alone can run."""
    world = World()
    agent, client = world.agent("a", functions=["demo.rare"]), world.client()
    client.submit(1, function="demo.rare")
    agent.done(1)
    world.agent("b", functions=["demo.add"])
    agent.say(m.Goodbye("restart"))
    assert client.submit(2, function="demo.rare") == [(client, m.Accepted(2))]
    world.pass_ms(6_000)
    assert world.state(2) == "queued"
    back = world.agent("a2", functions=["demo.rare"])
    assert back.numbers() == [2]


def test_functions_by_value_are_never_unknown() -> None:
    world = World()
    agent, client = world.agent(functions=["demo.add"]), world.client()
    client.submit(1, function="~__main__.square")
    assert agent.numbers() == [1]


def test_registered_options_hold_where_the_call_has_none() -> None:
    world = World()
    registered = options(priority=8, timeout_ms=500, queue="slow")
    agent = world.agent(queues=["slow", "default"], registered=registered)
    client = world.client()
    told = client.submit(1)
    assert told[0] == (
        agent,
        m.Run([(task_id(1), m.fence_of(1, 1), "demo.add", CALL, 500, 0)]),
    )
    client.submit(2, timeout_ms=9)
    assert world.task(1).options == registered
    assert world.task(2).options == options(timeout_ms=9)


def test_large_payloads_pass_untouched() -> None:
    world = World()
    agent, client = world.agent(), world.client()
    payload = m.Frames([bytes(100_000), b"x"])
    ((_, run), _) = client.submit(1, payload=payload)
    assert isinstance(run, m.Run)
    assert run.items[0][3] is payload
    result = m.Frames([bytes(200_000)])
    agent.say(agent.result(1, payload=result))
    assert client.ends[task_id(1)][2] is result
    assert world.core.tables.bytes == 200_000
