"""T10, T11: who says to be somebody else, and results of attempts that the sender does not hold.

Names of connections carry no authority, and a result counts only from the agent that holds the
attempt, with its fence. Who may know the ids used here needs no more than patience; that instances
cannot be borrowed needs keys, and is tested where those are.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

import msgpack
import pytest

import evener
from evener_wire import messages as m
from evener_wire.limits import BATCH_ITEMS_MAX, HELD_MAX, SLOTS_MAX
from tests.bad_inputs import bad_app as app
from tests.bad_inputs import zmtp
from tests.bad_inputs.live import Live
from tests.support import wait_until

VALUE: Final = b"\x91\xa6stolen"


# --- T10: names of connections --------------------------------------------------------------------


@pytest.mark.parametrize("identity", [b"same", b"s", b"x" * 255, b"\x01" + b"\x00" * 4])
def test_t10_a_second_connection_of_the_same_name_is_ignored(live: Live, identity: bytes) -> None:
    """ROUTER_HANDOVER=0: the first one keeps its sends, and its session."""
    with live.attacked(sessions_opened=1) as attacker:
        first = attacker(identity)
        first.hello()
        second = attacker(identity)
        second.outside(zmtp.hello())
        for number in range(20):
            first.say(m.Query(number, "ls", {"kind": "queues"}))
            assert first.expect(m.Answer).number == number
        assert second.heard() == []
        first.leave()


@pytest.mark.parametrize(
    "identity", [b"\x00", b"\x00\x00\x00\x00\x01", b"\x00" * 255, b"\x00" * 256, b"x" * 5_000]
)
def test_t10_reserved_and_overlong_names_take_nothing_from_others(
    live: Live, identity: bytes
) -> None:
    """The broker's own names begin with a zero byte; libzmq's library refuses to claim one.

    Under a name that it takes the same HELLO again is the one before, repeated.
    """
    with live.attacked("sessions_opened", "messages_repeated"):
        for _ in range(3):
            with zmtp.connect(live.port) as made:
                zmtp.try_send(made, zmtp.GREETING + zmtp.ready({b"Identity": identity}))
                zmtp.try_send(made, zmtp.message(zmtp.hello()))
                assert live.flow is not None
                live.flow.wait_for_more()


def test_t10_a_connection_that_guesses_a_session(live: Live) -> None:
    with live.attacked(sessions_opened=2, messages_out_of_step=1, sessions_out_of_step=1) as maker:
        victim, thief = maker(), maker()
        victim.hello()
        thief.hello()
        thief.outside(m.Cancel([(bytes(16), 0)]), victim.session, 1)
        assert thief.expect(m.Resync).reason == "out of step"
        victim.sync()
        victim.leave()


# --- T11: attempts of others ----------------------------------------------------------------------


@contextmanager
def running(live: Live, name: str) -> Iterator[tuple[bytes, int, evener.Future[str]]]:
    """A task of the good client that runs until the block ends: its id, its fence, its future."""
    file = live.cluster.folder / name
    future = live.client.submit(app.stay, name)
    wait_until(file.with_suffix(".begun").exists, 20, "the task to begin")
    epoch = live.status()["broker"]["epoch"]
    yield bytes.fromhex(future.task_id), m.fence_of(epoch, 1), future
    file.touch()
    assert future.result(20) == name


def _results(task_id: bytes, fences: list[int], outcome: int = m.DONE) -> m.Result:
    return m.Result([(task_id, fence, outcome, VALUE, 1, None) for fence in fences])


def test_t11_results_for_what_others_hold(live: Live) -> None:
    """Each is counted, none is taken: of the right fence, of others, of any epoch."""
    stale = len(m.OUTCOMES) * 6
    with (
        live.attacked(sessions_opened=1, results_stale=stale, agents_lost=1) as attacker,
        running(live, "others") as (task_id, fence, _),
    ):
        agent = attacker()
        agent.hello("agent")
        agent.offer("evil.f")
        epoch = m.epoch_of(fence)
        fences = [fence, fence + 1, 0, m.fence_of(epoch - 1, 1), m.fence_of(epoch + 1, 1)]
        for outcome in range(len(m.OUTCOMES)):
            agent.say(_results(task_id, [*fences, (1 << 63) - 1], outcome))
        wait_until(lambda: live.counters()["results_stale"] >= stale, 10, "the counter")
        agent.leave()


def test_t11_the_same_result_very_often(live: Live) -> None:
    batches = 50
    with (
        live.attacked(
            sessions_opened=1, results_stale=batches * BATCH_ITEMS_MAX, agents_lost=1
        ) as attacker,
        running(live, "often") as (task_id, fence, _),
    ):
        agent = attacker()
        agent.hello("agent")
        for _ in range(batches):
            agent.say(_results(task_id, [fence] * BATCH_ITEMS_MAX))
        agent.leave()


def test_t11_starts_of_what_others_hold(live: Live) -> None:
    with (
        live.attacked(sessions_opened=1, starts_stale=5, agents_lost=1) as attacker,
        running(live, "starts") as (task_id, fence, _),
    ):
        agent = attacker()
        agent.hello("agent")
        agent.say(m.Started([(task_id, fence), (task_id, fence + 1), (bytes(16), 0)]))
        agent.say(m.Heartbeat([(task_id, fence, 5), (bytes(16), fence, 5)]))
        agent.leave()


def test_t11_an_inventory_of_what_others_hold(live: Live) -> None:
    """An agent says that it holds what another runs, or nobody: it is told to stop all of it."""
    held = [(number.to_bytes(16, "big"), 0) for number in range(100)]
    with (
        live.attacked(sessions_opened=1, attempts_stale=101, agents_lost=1) as attacker,
        running(live, "inventory") as (task_id, fence, _),
    ):
        agent = attacker()
        agent.hello("agent")
        epoch = m.epoch_of(fence)
        mine = [(i, m.fence_of(epoch, 1)) for i, _ in held] + [(task_id, fence)]
        agent.say(m.Offer(1, False, ("evil",), [("evil.f", None)], mine))
        stopped = agent.expect(m.Cancel)
        assert {*stopped.items} == {*mine}
        agent.leave()


def test_t11_attempts_of_another_epoch_are_kept_within_bounds(live: Live) -> None:
    """What an earlier broker may have given out is awaited; it goes with the agent that told it."""
    with live.attacked(sessions_opened=1, agents_lost=1) as attacker:
        agent = attacker()
        agent.hello("agent")
        held = [(number.to_bytes(16, "big"), m.fence_of(1, 1)) for number in range(HELD_MAX)]
        agent.say(m.Offer(1, False, ("evil",), [], held))
        agent.say(_results(bytes(15) + b"\1", [m.fence_of(1, 1)], m.RETURNED))
        agent.leave()


def test_t11_credit_that_nobody_has_and_fences_below_zero(live: Live) -> None:
    credits: list[object] = [-1, SLOTS_MAX + 1, 1 << 31, (1 << 64) - 1, True, 1.0]
    wrong = [[m.Offer.KIND, slots, False, ["evil"], None, None] for slots in credits]
    wrong += [[m.Result.KIND, [[bytes(16), fence, 0, b"", 1, None]]] for fence in (-1, 1 << 63)]
    count = len(wrong)
    with live.attacked(
        sessions_opened=count, messages_malformed=count, violations=count, agents_lost=count
    ) as attacker:
        for kind, *fields in wrong:
            agent = attacker()
            agent.hello("agent")
            agent.frames(msgpack.packb([kind, agent.session, 1, *fields]))
            assert agent.expect(m.Refused).code == "violation"


def test_t11_a_result_for_an_ended_attempt_and_a_start_after_it(live: Live) -> None:
    """The agent that held it tells it again: the end stays as it was."""
    with live.attacked(
        sessions_opened=1, results_stale=3, starts_stale=1, agents_lost=1
    ) as attacker:
        agent = attacker()
        agent.hello("agent")
        agent.offer("evil.f")
        future = live.client.function("evil.f", queue="evil").submit()
        ((task_id, fence, *_),) = agent.expect(m.Run).items
        agent.say(m.Result([(task_id, fence, m.DONE, b"\x91\x01", 1, None)]))
        assert future.result(10) == 1
        agent.say(m.Result([(task_id, fence, m.DONE, VALUE, 1, None)]))
        agent.say(m.Result([(task_id, fence, m.FAILED, VALUE, 1, None)] * 2))
        agent.say(m.Started([(task_id, fence)]))
        agent.leave()
        assert future.result(10) == 1
