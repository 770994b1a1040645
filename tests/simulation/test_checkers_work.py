"""The checkers of generators, care of workers and schedules reject what breaks their invariants.

Rules of this file: as in `test_checkers.py`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import msgpack
import pytest

from evener_broker.schedule_records import key_of, run_id
from evener_wire import messages as m
from tests.simulation.scene import Scene, name_of
from tests.simulation.streams import Yielding
from tests.simulation.timetable import Timetable
from tests.simulation.truth import Body, Run, Ticket, call_of
from tests.simulation.world import MS, SECOND, Violation

EVERY = m.Schedule("due0", "app.due", 1_000, "", "UTC", "skip", "once", 0, bytes(call_of(-1, 0)))  # type: ignore[arg-type]
DUE = 1_800_000_000 * SECOND


# --- Generators -----------------------------------------------------------------------------------


def streaming(scene: Scene, yielded: int = 5) -> tuple[Ticket, Run]:
    """An attempt that yielded so many values."""
    ticket = scene.ticket()
    run = scene.begin(ticket, scene.send(ticket))
    run.yielded = yielded
    return ticket, run


def value(run: Run, index: int) -> tuple[Ticket, int, m.Payload]:
    """One of its values, as the session hands it to the program."""
    payload: bytes = msgpack.packb([run.ticket.number, run.key[1], index])
    return run.ticket, run.key[1], payload


def a_value_is_left_out(scene: Scene) -> None:
    _, run = streaming(scene)
    scene.simulation.clients[0].readers.valued([value(run, 0), value(run, 2)])


def a_value_comes_twice(scene: Scene) -> None:
    _, run = streaming(scene)
    scene.simulation.clients[0].readers.valued([value(run, 0), value(run, 0)])


def a_value_that_nobody_yielded(scene: Scene) -> None:
    _, run = streaming(scene, 1)
    scene.simulation.clients[0].readers.valued([value(run, 0), value(run, 1)])


def a_value_of_an_older_attempt(scene: Scene) -> None:
    ticket, first = streaming(scene)
    scene.simulation.truth.end(first, "died")
    scene.checkers._watch.by_key[first.key][1].given_up = True
    second = scene.begin(ticket, scene.send(ticket, 2))
    second.yielded = 1
    readers = scene.simulation.clients[0].readers
    readers.valued([value(first, 0), value(second, 0), value(first, 1)])


def the_end_comes_too_early(scene: Scene) -> None:
    ticket, run = streaming(scene)
    scene.simulation.clients[0].readers.valued([(ticket, run.key[1], None)])


def taken_and_never_read(scene: Scene) -> None:
    ticket, run = streaming(scene)
    heard_ns = {ticket.owner: scene.world.now}
    tell: Callable[[int, bool, m.Payload], None] = lambda index, more, payload: None  # noqa: E731
    Yielding(scene.world, run, 9, heard_ns, tell, lambda: None).taken(3)


def more_is_taken_than_there_was(scene: Scene) -> None:
    _, run = streaming(scene)
    tell: Callable[[int, bool, m.Payload], None] = lambda index, more, payload: None  # noqa: E731
    Yielding(scene.world, run, 9, {}, tell, lambda: None).taken(6)


def done_without_its_values(scene: Scene) -> None:
    ticket, run = streaming(scene)
    ticket.body = replace(ticket.body, values=5)
    readers = scene.simulation.clients[0].readers
    readers.valued([value(run, 0)])
    readers.ended(ticket, "done", (ticket.id, m.TERMINAL_DONE, b"", None))


# --- Care of workers ------------------------------------------------------------------------------


def leaves_while_it_runs(scene: Scene) -> None:
    agent = scene.simulation.agents[0]
    worker = next(iter(agent.workers.values()))
    _, worker.run = streaming(scene)
    agent.tending.on_leave(worker)


def killed_while_it_runs(scene: Scene) -> None:
    agent = scene.simulation.agents[0]
    worker = next(iter(agent.workers.values()))
    _, worker.run = streaming(scene)
    worker._sequence = 1
    agent.tending.on_kill(worker)


def all_leave_at_a_time(scene: Scene) -> None:
    agent = scene.simulation.agents[0]
    worker = next(iter(agent.workers.values()))
    worker.leaving = True
    agent.tending.on_leave(worker)


def never_replaced(scene: Scene) -> None:
    agent = scene.simulation.agents[0]
    assert agent.config is not None
    agent.config = replace(agent.config, max_tasks_per_worker=3)
    next(iter(agent.workers.values())).tasks = 3
    agent.tending.audit()


def too_old(scene: Scene) -> None:
    agent = scene.simulation.agents[0]
    assert agent.config is not None
    agent.config = replace(agent.config, max_worker_age_seconds=5.0)
    scene.world.now += 60 * SECOND
    agent.tending.audit()


# --- Schedules ------------------------------------------------------------------------------------


def due(scene: Scene, timetable: Timetable, at_ns: int, spec: m.Schedule = EVERY) -> Ticket:
    """A run of it is sent."""
    task_id = run_id(key_of(spec), at_ns)
    ticket = scene.simulation.truth.of_payload(spec.call, task_id)
    timetable.on_run(ticket, scene.simulation.broker)
    return ticket


def a_table(scene: Scene, spec: m.Schedule = EVERY) -> Timetable:
    """With this in it."""
    return Timetable(scene.world, scene.simulation.truth, [(spec, Body(MS))], durable=False)


def a_run_of_no_schedule(scene: Scene) -> None:
    due(scene, a_table(scene), DUE, EVERY._replace(name="other"))


def an_earlier_time_after_a_later_one(scene: Scene) -> None:
    timetable = a_table(scene)
    due(scene, timetable, DUE)
    due(scene, timetable, DUE - SECOND)


def a_run_between_two_rounds(scene: Scene) -> None:
    timetable = a_table(scene)
    due(scene, timetable, DUE)
    due(scene, timetable, DUE + 1_300 * MS)


def a_run_beside_the_last_one(scene: Scene) -> None:
    timetable = scene.checkers.timetable = a_table(scene)
    first = due(scene, timetable, DUE)
    scene.begin(first, scene.send(first))
    due(scene, timetable, DUE + SECOND)


def cron_runs_before_its_time(scene: Scene) -> None:
    spec = EVERY._replace(every_ms=0, cron="*/5 * * * * *")
    due(scene, a_table(scene, spec), 2 * DUE, spec)


def paused_and_runs(scene: Scene) -> None:
    timetable = a_table(scene)
    timetable.paused_ns = scene.world.now - 1
    due(scene, timetable, DUE)


def nothing_comes_round(scene: Scene) -> None:
    timetable = a_table(scene)
    due(scene, timetable, DUE)
    timetable.check_goes_on(timetable.soon(), scene.simulation.broker)


VIOLATIONS: tuple[tuple[str, Callable[[Scene], None]], ...] = (
    ("I2", a_value_is_left_out),
    ("I2", a_value_comes_twice),
    ("I2", the_end_comes_too_early),
    ("I3", a_value_that_nobody_yielded),
    ("I3", a_run_of_no_schedule),
    ("I4", an_earlier_time_after_a_later_one),
    ("I7", a_run_beside_the_last_one),
    ("I8", a_value_of_an_older_attempt),
    ("I8", more_is_taken_than_there_was),
    ("I11", leaves_while_it_runs),
    ("I11", killed_while_it_runs),
    ("I16", paused_and_runs),
    ("I17", a_run_between_two_rounds),
    ("I17", cron_runs_before_its_time),
    ("I19", never_replaced),
    ("I19", too_old),
    ("I19", nothing_comes_round),
    ("I22", taken_and_never_read),
    ("I22", done_without_its_values),
    ("I22", all_leave_at_a_time),
)


@pytest.mark.parametrize(("invariant", "plant"), VIOLATIONS, ids=name_of)
def test_the_checker_rejects(invariant: str, plant: Callable[[Scene], None]) -> None:
    with pytest.raises(Violation) as caught:
        plant(Scene())
    assert caught.value.invariant == invariant
