"""The audit at the end of a seed: everything that was submitted has ended, and nothing is left.

Rules of this file: only here a checker looks into the tables of a core, because what must be empty
is the table itself. Holds I6, I19, I20, I23; "nothing accepted" fails as well.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from evener import session_records as r
from evener_broker.records import Client
from tests.simulation.world import Violation

if TYPE_CHECKING:
    from tests.simulation.run import Simulation

# Timers that may stand beside those of sessions, queues and retention.
_TIMERS_MAX: Final = 1_100

# The largest task of all, in a journal.
_LARGEST_BYTES: Final = 71_000


def audit(simulation: Simulation) -> None:
    """Raises `Violation`."""
    simulation.world.checked.update(("I6", "I19", "I20"))
    if _is_full_of_the_dead(simulation):
        # Results kept for clients that vanished count until their retention is over, and the others
        # wait as long. Only brokers with small bounds come to that.
        simulation.world.hit("broker is full of results that nobody comes for")
        return
    _everything_ended(simulation)
    _broker_is_empty(simulation)
    _agents_are_empty(simulation)
    _clients_are_empty(simulation)
    simulation.broker.core.check()


def _is_full_of_the_dead(simulation: Simulation) -> bool:
    tables = simulation.broker.core.tables
    dead = [t for t in tables.tasks.values() if t.client.session is None and not t.taken]
    size = sum(len(task.payload) for task in dead)
    bounds, disk = tables.bounds, simulation.disk
    # The largest task of all may not fit beside them.
    wanted = _LARGEST_BYTES if disk is None else disk.book.bytes + _LARGEST_BYTES
    if dead and disk is not None and wanted > disk.bytes_max * 8 // 10:
        return True
    return len(dead) >= bounds.tasks or size > bounds.payload_bytes // 2


def _everything_ended(simulation: Simulation) -> None:
    readers = {c.who for c in simulation.clients if c.alive and not c.is_paused()}
    for ticket in simulation.truth.tickets:
        if not ticket.ends and ticket.alarming and ticket.owner in readers:
            story = "\n".join(simulation.broker.core.tables.story(ticket.id))
            raise Violation("I19", f"never ended: {ticket.story()}\n{story}")
    if not simulation.checkers.accepted:
        raise Violation("vacuous", "the broker accepted nothing")


def _broker_is_empty(simulation: Simulation) -> None:
    tables = simulation.broker.core.tables
    if tables.open_tasks:
        tasks = [task for task in tables.tasks.values() if task.agent or not task.digest]
        raise Violation("I20", f"{tables.open_tasks} tasks still open: {tasks[:5]}")
    for task in tables.tasks.values():
        if (
            not task.taken
            and task.client.session is not None
            and not _sleeps(simulation, task.client)
        ):
            raise Violation("I20", f"{task} was not taken by {task.client}, who is there")
    for queue in tables.queues.values():
        if queue.count:
            raise Violation("I20", f"{queue} is not empty")
    living = {agent.who: agent for agent in simulation.agents if agent.alive}
    for record in tables.agents.values():
        if record.name not in living:
            raise Violation("I18", f"{record} is dead, and has no verdict")
        if record.open or record.orphans:
            raise Violation("I20", f"{record} still has {record.open} {record.orphans}")
    missing = living.keys() - {record.name for record in tables.agents.values()}
    if missing:
        raise Violation("I23", f"{missing} did not come back")
    accepted = sum(simulation.watch.epoch in t.accepted for t in simulation.truth.tickets)
    # Where there is a journal, the number goes on from broker to broker.
    # What an adversary submits on two connections at once is not in the books.
    is_known = simulation.disk is None and not simulation.adversaries
    is_known = is_known and not simulation.swarm.schedules
    if accepted != tables.accepted and is_known:
        raise Violation("I20", f"{tables.accepted} accepted, seen were {accepted}")
    most = len(tables.sessions) + 2 * len(tables.clients) + len(tables.queues) + _TIMERS_MAX
    if len(tables.timers) > most:
        raise Violation("I20", f"{len(tables.timers)} timers are left")


def _sleeps(simulation: Simulation, client: Client) -> bool:
    return any(node.who == client.name and node.is_paused() for node in simulation.clients)


def _agents_are_empty(simulation: Simulation) -> None:
    for agent in simulation.agents:
        core = agent.core
        if core is None or not agent.alive:
            continue
        core.check()
        if core.ledger.open or core.ledger.ended or core.session.unacked:
            raise Violation("I20", f"{core!r} is not empty")
        agent.tending.audit()
        away = core.care.away_max() if simulation.swarm.care_s else 0
        if core.handout.ready() + away < len(core.pool.slots):
            raise Violation("I19", f"{core!r}: not all workers came back")
    if simulation.truth.running:
        raise Violation("I20", f"still running: {list(simulation.truth.running)}")


def _clients_are_empty(simulation: Simulation) -> None:
    for client in simulation.clients:
        session = client.session
        if session is None or not client.alive or client.is_paused() or client.over:
            continue
        session.check()
        if session.state is not r.State.OPEN:
            raise Violation("I19", f"{client.who} has no session: {session.state}")
        if session.tasks.counts() != {"open": 0, "waiting": 0, "flights": 0, "held": 0}:
            raise Violation("I20", f"{client.who}: {session.tasks.counts()}")
