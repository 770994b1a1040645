"""Restarts of the broker in the worst moment: while bodies run, and with peers that come late.

Rules of this file: what the next broker hears of a task it hears from several, one after the other,
and each order of that must come up.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Final

from tests.simulation.agent_node import AgentNode
from tests.simulation.client_node import ClientNode
from tests.simulation.network import Network
from tests.simulation.world import MS, SECOND, World

# How often it looks whether bodies run, every 20 ms.
_LOOKS_MAX: Final = 100


class Disorder:
    """Caller: the faults."""

    def __init__(
        self,
        world: World,
        network: Network,
        agents: list[AgentNode],
        clients: list[ClientNode],
        crash: Callable[[random.Random], str | None],
    ) -> None:
        self._world = world
        self._network = network
        self._agents = agents
        self._clients = clients
        self._crash = crash
        self._healed = False
        self._until_ns: dict[str, int] = {}  # clients that are late

    def strike(self, rng: random.Random) -> str | None:
        """It strikes as soon as a body runs, and says so then."""
        self._look((rng, _LOOKS_MAX))
        return None

    def heal(self) -> None:
        """No more of this, but who is late comes when it comes."""
        self._healed = True
        for name, until_ns in self._until_ns.items():
            self._network.stall_names(name, max(0, until_ns - self._world.now))

    def _look(self, what: tuple[random.Random, int]) -> None:
        rng, left = what
        if self._healed or not left:
            return
        runs = [w.run for agent in self._agents for w in agent.workers.values() if w.run]
        if left > _LOOKS_MAX // 2:
            runs = [run for run in runs if run.ticket.body.values]  # rather generators
        if not runs:
            self._world.after(20 * MS, "fault", self._look, (rng, left - 1))
        elif struck := self._crash(rng):
            self._delay(rng)
            self._kill(rng)
            self._world.fault("late peers", struck)

    def _delay(self, rng: random.Random) -> None:
        """Some agents learn the address of the next broker late, and most clients even later:
        some only when what their generators yield is dropped."""
        for agent in self._agents:
            if rng.random() < 0.3:
                self._network.stall_names(agent.name, int(SECOND * 20 ** rng.random()))
        for client in self._clients:
            if rng.random() < 0.8:
                seconds = 20 ** rng.random() if rng.random() < 0.65 else rng.uniform(30, 80)
                late_ns = int(SECOND * seconds)
                self._network.stall_names(client.name, late_ns)
                self._until_ns[client.name] = self._world.now + late_ns

    def _kill(self, rng: random.Random) -> None:
        """Workers die with work in their hands: what has not started comes back."""
        for agent in self._agents:
            busy = [w for _, w in sorted(agent.workers.items()) if w.run is not None]
            if busy and rng.random() < 0.5:
                rng.choice(busy).die(signal=9)
