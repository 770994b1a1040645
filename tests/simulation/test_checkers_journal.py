"""Each checker of the journal must reject a history that breaks its invariant.

Rules of this file: a history is planted into an otherwise quiet seed, at the place where the
checker listens; the core itself makes no mistake here.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest

from evener_broker.effects import Append
from evener_broker.journaling import Records, TaskEnded, TaskSaved, TaskTried
from evener_wire import messages as m
from tests.simulation.scene import Scene
from tests.simulation.truth import Sent, Ticket
from tests.simulation.world import Violation


def _save(scene: Scene, ticket: Ticket, number: int = 1) -> TaskSaved:
    client = scene.client.instance
    saved = TaskSaved(number, ticket.id, client, "app.short", m.Options(), ticket.item[2], 1)
    disk = scene.simulation.disk
    assert disk is not None
    disk.book.apply(Records(saved=[saved]))
    return saved


def _submitted(scene: Scene) -> Ticket:
    ticket = scene.ticket()
    assert scene.watch.durable is not None
    scene.watch.durable.on_submit(7, 1, [ticket])
    return ticket


def accepted_and_not_on_disk(scene: Scene) -> None:
    _submitted(scene)
    assert scene.watch.durable is not None
    scene.watch.durable.on_accepted(7, 1)


def accepted_and_gone_after_a_crash(scene: Scene) -> None:
    ticket = _submitted(scene)
    durable = scene.watch.durable
    assert durable is not None
    _save(scene, ticket)
    durable.on_accepted(7, 1)
    durable.disk.book.tasks.clear()
    durable.disk.book.by_id.clear()
    durable.began(9)


def end_told_and_not_on_disk(scene: Scene) -> None:
    ticket = _submitted(scene)
    _save(scene, ticket)
    scene.tell(ticket, m.TERMINAL_DONE, b"x")


def acknowledged_and_not_on_disk(scene: Scene) -> None:
    ticket = _submitted(scene)
    _save(scene, ticket)
    assert scene.watch.durable is not None
    scene.watch.durable.on_results(8, 1, [(ticket, Sent(1, 1, "agent0.1", 0))])
    scene.watch.durable.on_acknowledged(8, 1)


def forgotten_before_its_client_has_it(scene: Scene) -> None:
    ticket = _submitted(scene)
    _save(scene, ticket)
    durable = scene.watch.durable
    assert durable is not None
    durable.on_accepted(7, 1)
    append = Append(50, Records(forgotten=[1]))
    durable.disk.book.apply(append.records)
    durable.disk.on_applied(append)


def number_used_twice(scene: Scene) -> None:
    _save(scene, _submitted(scene))
    _save(scene, scene.ticket(2))


def epoch_that_does_not_grow(scene: Scene) -> None:
    disk = scene.simulation.disk
    assert disk is not None
    disk.epoch = 1 << 50
    disk.epoch, before = -5, disk.epoch
    disk.open(0, lambda event: None)
    disk.append(before, Append(1, Records()))


def sent_and_ended_in_the_journal(scene: Scene) -> None:
    ticket = _submitted(scene)
    _save(scene, ticket)
    assert scene.simulation.disk is not None
    end = TaskEnded(1, m.TERMINAL_DONE, b"x", None, False)
    scene.simulation.disk.book.apply(Records(ended=[end]))
    scene.send(ticket)


def sent_to_an_agent_without_a_name(scene: Scene) -> None:
    ticket = _submitted(scene)
    _save(scene, ticket)
    assert scene.simulation.disk is not None
    scene.simulation.disk.book.agents.clear()
    scene.send(ticket)


def once_and_not_noted(scene: Scene) -> None:
    ticket = scene.ticket(at_most_once=True)
    _save(scene, ticket)
    scene.send(ticket)


def once_and_noted_by_an_earlier_broker(scene: Scene) -> None:
    ticket = scene.ticket(at_most_once=True)
    durable = scene.watch.durable
    assert durable is not None
    durable.on_submit(7, 1, [ticket])
    _save(scene, ticket)
    tried = TaskTried(1, 0, 0, 0, dispatched=True, settled=0)
    durable.disk.book.apply(Records(tried=[tried]))
    durable.began(9)
    scene.send(ticket)


def journal_that_differs(scene: Scene) -> None:
    durable = scene.watch.durable
    assert durable is not None
    ticket = _submitted(scene)
    durable._snapshots[60] = {1: ("what the broker held",)}
    _save(scene, ticket)
    durable.disk.on_applied(Append(60, Records()))


def another_end_in_the_journal(scene: Scene) -> None:
    _save(scene, _submitted(scene))
    disk = scene.simulation.disk
    assert disk is not None
    for state in (m.TERMINAL_DONE, m.TERMINAL_LOST):
        disk.book.apply(Records(ended=[TaskEnded(1, state, b"", None, False)]))


IN_JOURNAL: tuple[tuple[str, Callable[[Scene], None]], ...] = (
    ("I1", another_end_in_the_journal),
    ("I5", accepted_and_not_on_disk),
    ("I5", accepted_and_gone_after_a_crash),
    ("I5", end_told_and_not_on_disk),
    ("I5", acknowledged_and_not_on_disk),
    ("I5", forgotten_before_its_client_has_it),
    ("I9", number_used_twice),
    ("I15", once_and_not_noted),
    ("I15", once_and_noted_by_an_earlier_broker),
    ("I23", sent_and_ended_in_the_journal),
    ("I23", sent_to_an_agent_without_a_name),
    ("I24", epoch_that_does_not_grow),
    ("I29", journal_that_differs),
)


@pytest.mark.parametrize(
    ("invariant", "plant"), IN_JOURNAL, ids=lambda v: getattr(v, "__name__", v)
)
def test_the_checker_of_a_journal_rejects(invariant: str, plant: Callable[[Scene], None]) -> None:
    with pytest.raises(Violation) as caught:
        plant(Scene(durable=True))
    assert caught.value.invariant == invariant
