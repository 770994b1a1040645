"""Care of workers in the simulation: limits of processes, rolling restarts, drains that are undone.

Rules of this file: who leaves is judged by what it runs and by how many are away, and at the end by
what is still there; the agent's own notes prove nothing.
"""

from __future__ import annotations

import random
from typing import TYPE_CHECKING, Any, Final

from evener import session_records as r
from evener_wire.limits import SECOND_NS
from evener_worker.limits import AWAY_DIVISOR
from tests.simulation.world import MS, SECOND, Violation, World

if TYPE_CHECKING:
    from tests.simulation.agent_node import AgentNode
    from tests.simulation.client_node import ClientNode
    from tests.simulation.worker import SimWorker

# Each task that a process ran leaves so much behind.
_LEAK_BYTES: Final = 300_000
_SMALL_BYTES: Final = 1 << 20

# A worker that is to leave does so within its stop hooks' time, and the agent looks each second.
_TURN_NS: Final = 10 * SECOND


def limits(rng: random.Random, care_s: float) -> dict[str, Any]:
    """What an agent is told of its workers; `care_s` 0: nothing."""
    if not care_s:
        return {}
    return {
        "max_tasks_per_worker": rng.choice((0, 1, 3, 20)),
        "max_worker_age_seconds": rng.choice((0, 0, 3, 20)) * care_s,
        "max_worker_memory": rng.choice((0, 0, 3_000_000)),
        "ping_seconds": rng.choice((30, 3)) * care_s,
    }


def memory_of(worker: SimWorker) -> tuple[int, int]:
    """What the agent measures."""
    return _SMALL_BYTES + _LEAK_BYTES * worker.tasks, 5


class Tending:
    """Caller: the node of an agent."""

    def __init__(self, world: World, agent: AgentNode) -> None:
        self._world = world
        self._agent = agent
        self._rolled_ns = -(1 << 62)

    def begin(self) -> None:
        """A new process of the agent."""
        self._rolled_ns = -(1 << 62)

    def rolls(self) -> None:
        """Somebody wants all workers to start anew: more may go at a time then."""
        self._rolled_ns = self._world.now + 600 * SECOND

    def on_leave(self, worker: SimWorker) -> None:
        """I11, I22: who is asked to leave runs nothing, and most of the others are there."""
        world, agent = self._world, self._agent
        world.checked.update(("I11", "I22"))
        if worker.run is not None:
            raise Violation("I11", f"{agent.who}: asked to leave while {worker.run} goes on")
        if agent.stopping or world.now < self._rolled_ns:
            return
        world.hit("worker is recycled")
        leaving = sum(w.leaving and w.alive for w in agent.workers.values()) + 1
        if leaving > max(1, agent.workers_count // AWAY_DIVISOR):
            raise Violation("I22", f"{agent.who}: {leaving} workers leave at a time")

    def on_kill(self, worker: SimWorker) -> None:
        """I11: nothing is killed that was not to end."""
        self._world.checked["I11"] += 1
        if worker.run is not None and not (worker.is_stopping() or self._agent.stopping):
            raise Violation("I11", f"{self._agent.who}: {worker.run} is killed")

    def audit(self) -> None:
        """I19: who reached a limit, and has nothing to do for long, was replaced."""
        agent, config = self._agent, self._agent.config
        if config is None:
            return
        self._world.checked["I19"] += 1
        for worker in agent.workers.values():
            most = config.max_tasks_per_worker
            if most and worker.tasks >= most:
                raise Violation("I19", f"{worker.slot}@{agent.who} ran {worker.tasks} of {most}")
            if 0 < config.max_worker_memory < memory_of(worker)[0]:
                raise Violation("I19", f"{worker.slot}@{agent.who} has too much memory")
            age_ns = self._world.now - worker.ready_ns
            turns_ns = _TURN_NS * (1 + len(agent.workers))
            most_ns = config.max_worker_age_seconds * SECOND_NS
            if most_ns and worker.ready and age_ns > most_ns * 1.001 + turns_ns:
                raise Violation("I19", f"{worker.slot}@{agent.who} is {age_ns / 1e9:.0f} s old")


class Operator:
    """Somebody who restarts and drains hosts by the command line."""

    def __init__(self, world: World, agents: list[AgentNode], clients: list[ClientNode]) -> None:
        self._world = world
        self._agents = agents
        self._clients = clients

    def restart(self, rng: random.Random) -> str | None:
        """SIGHUP, or `evener restart`."""
        agent = rng.choice(self._agents)
        if not agent.alive:
            return None
        agent.restart_workers("SIGHUP")
        return agent.who

    def drain(self, rng: random.Random) -> str | None:
        """`evener drain`, and a while later `evener drain --undo`."""
        agent, client = rng.choice(self._agents), rng.choice(self._clients)
        for_ns = int(rng.uniform(0.2, 8) * SECOND)
        if not agent.alive or not client.alive:
            return None
        client.ask("drain", {"host": agent.who})
        self._world.after(for_ns, client.name, self._on_undo, (client, agent.who))
        return agent.who

    def _on_undo(self, what: tuple[ClientNode, str]) -> None:
        client, who = what
        client.ask("drain", {"host": who, "undo": True})

    def heal(self) -> None:
        """Nobody stays drained: whoever forgot to undo it starts the agent anew."""
        for agent in self._agents:
            if agent.alive and agent.core is not None and agent.core.care.paused:
                self._world.hit("drained agent is started anew")
                agent.crash(host=False)


def question(number: int, what: str, arguments: dict[str, Any]) -> r.Asked:
    """Of a person, who waits for 5 s."""
    return r.Asked(number, what, arguments, 5_000 * MS)
