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

    def strike(self, rng: random.Random) -> str | None:
        """It strikes as soon as a body runs, and says so then."""
        self._look((rng, _LOOKS_MAX))
        return None

    def heal(self) -> None:
        """No more of this."""
        self._healed = True

    def _look(self, what: tuple[random.Random, int]) -> None:
        rng, left = what
        if self._healed or not left:
            return
        if not any(w.run is not None for agent in self._agents for w in agent.workers.values()):
            self._world.after(20 * MS, "fault", self._look, (rng, left - 1))
        elif struck := self._crash(rng):
            late = self._delay(rng)
            self._kill(rng)
            self._world.fault("late peers", f"{struck}, {late}")

    def _delay(self, rng: random.Random) -> list[str]:
        """Some agents learn the address of the next broker late, and most clients even later."""
        late = [agent.name for agent in self._agents if rng.random() < 0.3]
        late += [client.name for client in self._clients if rng.random() < 0.8]
        for name in late:
            self._network.stall_names(name, int(SECOND * 20 ** rng.random()))
        return late

    def _kill(self, rng: random.Random) -> None:
        """Workers die with work in their hands: what has not started comes back."""
        for agent in self._agents:
            busy = [w for _, w in sorted(agent.workers.items()) if w.run is not None]
            if busy and rng.random() < 0.5:
                rng.choice(busy).die(signal=9)
