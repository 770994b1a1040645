"""Each checker must reject a history that breaks its invariant: else it holds nothing.

Rules of this file: a history is planted into an otherwise quiet seed, at the place where the
checker listens; the core itself makes no mistake here.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from evener import session_records as r
from evener_broker.events import Malformed
from evener_broker.records import Task
from evener_broker.transitions import Cause, State
from evener_wire import messages as m
from tests.simulation.audit import audit
from tests.simulation.comeback import check_connected, check_hellos
from tests.simulation.scene import Scene
from tests.simulation.truth import Sent, result_of
from tests.simulation.world import SECOND, Violation


def two_ends(scene: Scene) -> None:
    ticket = scene.ticket()
    run = scene.run(ticket)
    scene.tell(ticket, m.TERMINAL_DONE, result_of(run))
    scene.tell(ticket, m.TERMINAL_LOST, reason="poison", starts=3)


def told_twice_at_the_caller(scene: Scene) -> None:
    ticket = scene.ticket()
    client = scene.simulation.clients[0]
    for _ in range(2):
        ticket.ends.append(("cancelled", "x"))
        scene.checkers.on_end(client, ticket)


def end_of_a_stranger(scene: Scene) -> None:
    scene.checkers.on_terminal(scene.client, m.Terminal([(bytes(16), 0, b"", None)]))


def result_of_another(scene: Scene) -> None:
    first, second = scene.ticket(1), scene.ticket(2)
    scene.run(first)
    scene.tell(first, m.TERMINAL_DONE, result_of(scene.run(second)))


def runs_after_its_end(scene: Scene) -> None:
    ticket = scene.ticket()
    scene.tell(ticket, m.TERMINAL_DONE, result_of(scene.run(ticket)))
    scene.send(ticket, 2)


def two_open_attempts(scene: Scene) -> None:
    ticket = scene.ticket()
    scene.begin(ticket, scene.send(ticket))
    scene.send(ticket, 2, scene.other)


def starts_long_after_the_broker_was_heard(scene: Scene) -> None:
    ticket = scene.ticket()
    fence = scene.send(ticket)
    scene.simulation.agents[0].heard_broker_ns -= 10 * SECOND
    scene.begin(ticket, fence)


def result_of_an_old_attempt(scene: Scene) -> None:
    ticket = scene.ticket()
    old = scene.run(ticket)
    scene.run(ticket, 2)
    scene.tell(ticket, m.TERMINAL_DONE, result_of(old))


def fence_that_was_there(scene: Scene) -> None:
    ticket = scene.ticket()
    scene.send(ticket, 2)
    scene.send(ticket, 1)


def sent_to_nobody(scene: Scene) -> None:
    scene.agent.slots = 0
    scene.send(scene.ticket())


def started_but_returned(scene: Scene) -> None:
    ticket = scene.ticket()
    fence = scene.send(ticket)
    scene.begin(ticket, fence)
    scene.checkers.on_result(ticket, fence, m.RETURNED)


def charged_for_nothing(scene: Scene) -> None:
    ticket = scene.ticket()
    scene.send(ticket)
    scene.tell(ticket, m.TERMINAL_LOST, reason="poison", starts=3)


def poison_after_one_start(scene: Scene) -> None:
    ticket = scene.ticket()
    scene.simulation.truth.end(scene.begin(ticket, scene.send(ticket)), "died")
    scene.tell(ticket, m.TERMINAL_LOST, reason="poison", starts=1)


def poison_goes_on(scene: Scene) -> None:
    ticket = scene.ticket(max_starts=1)
    for attempt in (1, 2, 3):
        scene.simulation.truth.end(scene.begin(ticket, scene.send(ticket, attempt)), "died")


def the_last_goes_first(scene: Scene) -> None:
    scene.ticket(1)
    scene.send(scene.ticket(2))
    scene.checkers.on_turn_over()


def one_client_is_passed_over(scene: Scene) -> None:
    waiting = scene.ticket(1)
    scene.checkers._order.ended(waiting)
    waiting.owner = "client1.1"
    scene.checkers._order.accepted(waiting)
    for number in range(2, 20):
        scene.send(scene.ticket(number), number)
        scene.agent.open.clear()
        scene.checkers.on_turn_over()


def at_most_once_is_sent_twice(scene: Scene) -> None:
    ticket = scene.ticket(at_most_once=True)
    scene.send(ticket)
    scene.send(ticket, 2)


def sent_after_its_cancel(scene: Scene) -> None:
    ticket = scene.ticket()
    scene.checkers.on_cancel(m.Cancel([(ticket.id, 0)]))
    scene.world.now += 1
    scene.send(ticket)


def ended_while_it_runs(scene: Scene) -> None:
    ticket = scene.ticket()
    ticket.cancel_asked = True
    scene.begin(ticket, scene.send(ticket))
    scene.tell(ticket, m.TERMINAL_CANCELLED)


def early_verdict(scene: Scene) -> None:
    scene.agent.read_ns = scene.world.now
    scene.checkers.on_verdict(scene.agent, "silent for 4.0 s")


def verdict_on_one_who_is_well(scene: Scene) -> None:
    scene.agent.session_ns = 0
    scene.world.now += 10 * SECOND
    scene.simulation.agents[0]._network.link("agent0").since_ns = 0
    scene.checkers.on_verdict(scene.agent, "its connection broke and it did not come back")


def no_verdict_at_all(scene: Scene) -> None:
    scene.agent.read_ns -= 60 * SECOND
    scene.checkers.on_turn_over()


def limit_that_nobody_kept(scene: Scene) -> None:
    ticket = scene.ticket(timeout_ms=5)
    run = scene.begin(ticket, scene.send(ticket))
    scene.world.now += 10 * SECOND
    scene.simulation.truth.end(run, "done")


def never_ended(scene: Scene) -> None:
    scene.ticket()
    audit(scene.simulation)


def open_at_the_end(scene: Scene) -> None:
    scene.ticket().ends.append(("done", None))
    scene.simulation.broker.core.tables.open_tasks = 1
    audit(scene.simulation)


def fetched_is_not_told(scene: Scene) -> None:
    ticket = scene.ticket()
    scene.tell(ticket, m.TERMINAL_DONE, result_of(scene.run(ticket)))
    body = b"\x93" + bytes([m.TERMINAL_LOST]) + b"\xc0\xc4\x00"
    scene.checkers.on_answer(scene.simulation.clients[0], ticket, r.Answered(1, True, body))


def result_was_taken(scene: Scene) -> None:
    ticket = scene.ticket()
    run = scene.run(ticket)
    sent = scene.watch.by_key[run.key][1]
    sent.taken_in, sent.taken_ns = scene.watch.epoch, scene.world.now
    scene.send(ticket, 2)


def reported_and_not_adopted(scene: Scene) -> None:
    ticket = scene.ticket()
    ticket.accepted[scene.watch.epoch] = (1, scene.world.now, True)
    key = (ticket.id, m.fence_of(0, 1))
    sent = Sent(0, key[1], "agent0.1", 0)
    ticket.sent.append(sent)
    scene.watch.by_key[key] = ticket, sent
    scene.watch.first_ns = scene.world.now
    scene.watch.adoption.on_stop(m.Cancel([key]))


def started_and_forgotten(scene: Scene) -> None:
    ticket = scene.ticket()
    scene.begin(ticket, scene.send(ticket))
    scene.watch.adoption.on_held(scene.agent, [])


def nobody_connects(scene: Scene) -> None:
    client = scene.simulation.clients[0]
    assert client.socket is not None
    client.socket.conn = None
    scene.simulation.broker.started_ns = 0
    check_connected(scene.simulation.broker, client, scene.world.now + 60 * SECOND)


def storm_of_hellos(scene: Scene) -> None:
    client = scene.simulation.clients[0]
    client.hellos[:] = [scene.world.now + number for number in range(20)]
    check_hellos(client)


def counter_that_lies(scene: Scene) -> None:
    broker = scene.simulation.broker
    scene.watch.turned(broker, [Malformed(b"nobody", "planted")], [])


def step_that_cannot_be(scene: Scene) -> None:
    broker = scene.simulation.broker
    task: Any = Task.__new__(Task)
    broker.moves.append((task, State.QUEUED, Cause.LOSE))
    scene.watch.turned(broker, [], [])


VIOLATIONS: tuple[tuple[str, Callable[[Scene], None]], ...] = (
    ("I1", two_ends),
    ("I1", step_that_cannot_be),
    ("I2", told_twice_at_the_caller),
    ("I3", end_of_a_stranger),
    ("I3", result_of_another),
    ("I4", runs_after_its_end),
    ("I7", two_open_attempts),
    ("I7", starts_long_after_the_broker_was_heard),
    ("I8", result_of_an_old_attempt),
    ("I9", fence_that_was_there),
    ("I10", sent_to_nobody),
    ("I11", started_but_returned),
    ("I11", charged_for_nothing),
    ("I11", started_and_forgotten),
    ("I12", poison_after_one_start),
    ("I12", poison_goes_on),
    ("I13", the_last_goes_first),
    ("I14", one_client_is_passed_over),
    ("I15", at_most_once_is_sent_twice),
    ("I16", sent_after_its_cancel),
    ("I16", ended_while_it_runs),
    ("I18", early_verdict),
    ("I18", verdict_on_one_who_is_well),
    ("I18", no_verdict_at_all),
    ("I19", limit_that_nobody_kept),
    ("I19", never_ended),
    ("I20", open_at_the_end),
    ("I22", fetched_is_not_told),
    ("I23", result_was_taken),
    ("I23", reported_and_not_adopted),
    ("I25", nobody_connects),
    ("I25", storm_of_hellos),
    ("I30", counter_that_lies),
)


@pytest.mark.parametrize(
    ("invariant", "plant"), VIOLATIONS, ids=lambda v: getattr(v, "__name__", v)
)
def test_the_checker_rejects(invariant: str, plant: Callable[[Scene], None]) -> None:
    with pytest.raises(Violation) as caught:
        plant(Scene())
    assert caught.value.invariant == invariant
