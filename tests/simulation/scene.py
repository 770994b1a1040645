"""A quiet cluster into which tests plant what must not happen.

Rules of this file: it drives the checkers as the watch would; no core is asked.
"""

from __future__ import annotations

from typing import Any

from evener_wire import messages as m
from tests.simulation.run import Choice, Simulation
from tests.simulation.taps import AgentTap, PeerTap
from tests.simulation.truth import Body, Run, Ticket
from tests.simulation.world import MS, SECOND


def name_of(value: object) -> str:
    """Of a case, for the list of tests."""
    return str(getattr(value, "__name__", value))


class Scene:
    """A cluster that stands, one task in it, and the checkers that listen."""

    def __init__(self, *, durable: bool = False) -> None:
        quiet = Choice(1)
        swarm = quiet.swarm()
        swarm.mean_s.clear()
        swarm.chances.clear()
        swarm.lasting.clear()
        swarm.durable, swarm.hostile, swarm.tasks = durable, False, 1
        swarm.agents, swarm.clients = [1, 1], 1
        swarm.schedules, swarm.care_s, swarm.streams = [], 0.0, False
        self.simulation = simulation = Simulation(quiet, swarm)
        for node in (simulation.broker, *simulation.agents, *simulation.clients):
            node.start()
        self.world = simulation.world
        self.world.run(self.world.now + 2 * SECOND)
        self.checkers, self.watch = simulation.checkers, simulation.watch
        self.agent = next(tap for tap in self.watch.agents.values() if tap.who == "agent0.1")
        self.other = next(tap for tap in self.watch.agents.values() if tap.who == "agent1.1")
        self.client = next(tap for tap in self.watch.peers.values() if tap.who == "client0.1")

    def peer(self, agent: AgentTap) -> PeerTap:
        """Its session."""
        return next(tap for tap in self.watch.peers.values() if tap.agent is agent)

    def ticket(self, number: int = 1, **chosen: Any) -> Ticket:
        """A task that the client submits, and that the broker seems to accept."""
        options = m.Options(**chosen)
        task_id = number.to_bytes(16, "big")
        ticket = self.simulation.truth.ticket(
            "client0.1", task_id, "app.short", Body(MS), options, 0
        )
        self.checkers.on_submit(self.client, m.Submit([ticket.item]), set())
        return ticket

    def send(self, ticket: Ticket, attempt: int = 1, agent: AgentTap | None = None) -> int:
        """The broker sends it to an agent."""
        fence = m.fence_of(self.watch.epoch, attempt)
        item = (ticket.id, fence, "app.short", ticket.item[2])
        self.checkers.on_run(self.peer(agent or self.agent), [item])
        return fence

    def begin(self, ticket: Ticket, fence: int, agent: str = "agent0.1") -> Run:
        """Its body starts."""
        return self.simulation.truth.begin(ticket.item[2], (ticket.id, fence), agent)

    def run(self, ticket: Ticket, attempt: int = 1) -> Run:
        """It is sent, runs and is done."""
        run = self.begin(ticket, self.send(ticket, attempt))
        self.simulation.truth.end(run, "done")
        return run

    def tell(self, ticket: Ticket, state: int, payload: m.Payload = b"", **facts: Any) -> None:
        """The broker tells its end."""
        items = [(ticket.id, state, payload, facts or None)]
        self.checkers.on_terminal(self.client, m.Terminal(items))
