"""Who is there and who is away: programs that end and come back, hosts that are off for hours.

Rules of this file: nobody is hurt. Programs close, hosts are drained or stopped in order, and both
come back by themselves; only the profile `days` has that.
"""

from __future__ import annotations

from tests.simulation.agent_node import AgentNode
from tests.simulation.swarm import Swarm
from tests.simulation.workload import Workload
from tests.simulation.world import SECOND, World


class Presence:
    """One clock for each host and each program."""

    def __init__(
        self, world: World, swarm: Swarm, agents: list[AgentNode], works: list[Workload]
    ) -> None:
        self._world = world
        self._swarm = swarm
        self._over = False
        self._agents = agents
        self._rng = world.stream("presence")
        self._until_ns: dict[AgentNode | Workload, int] = {}
        if swarm.away_s:
            for agent in agents:
                self._after(swarm.there_s, self._on_agent_leaves, agent)
            for work in works:
                self._after(swarm.there_s, self._on_program_leaves, work)

    def end(self) -> None:
        """From now on nobody leaves."""
        self._over = True

    def _after(self, mean_s: float, what: object, subject: AgentNode | Workload) -> None:
        delay_ns = int(self._rng.expovariate(1 / mean_s) * SECOND)
        self._world.after(delay_ns, "presence", self._on_due, (what, subject))

    def _on_due(self, what: tuple[object, AgentNode | Workload]) -> None:
        if not self._over:
            handler, subject = what
            assert callable(handler)
            handler(subject)

    def _away(self) -> int:
        """Until when somebody who leaves now is away."""
        return self._world.now + int(self._rng.expovariate(1 / self._swarm.away_s) * SECOND)

    # --- Hosts ------------------------------------------------------------------------------------

    def _on_agent_leaves(self, agent: AgentNode) -> None:
        self._world.hit("host is off for hours")
        self._until_ns[agent] = self._away()
        self._on_agent_away(agent)

    def _on_agent_away(self, agent: AgentNode) -> None:
        """Whatever supervisors start meanwhile is stopped again after a while."""
        if self._world.now < self._until_ns[agent]:
            agent.stop("SIGTERM", at_once=self._rng.random() < 0.2)
            self._after(self._swarm.there_s, self._on_agent_away, agent)
        else:
            self._on_switched_on(agent)
            self._after(self._swarm.there_s, self._on_agent_leaves, agent)

    def _on_switched_on(self, agent: AgentNode) -> None:
        if not agent.alive:
            agent.start()

    # --- Programs ---------------------------------------------------------------------------------

    def _on_program_leaves(self, work: Workload) -> None:
        self._world.hit("program is away for hours")
        self._until_ns[work] = self._away()
        self._on_program_away(work)

    def _on_program_away(self, work: Workload) -> None:
        client = work.client
        if self._world.now < self._until_ns[work]:
            if client.alive and not client.over:
                client.close()
            self._after(self._swarm.there_s, self._on_program_away, work)
            return
        if client.alive and client.over:
            client.crash(host=False)
        if not client.alive:
            client.start()
        for agent in self._agents:
            if self._rng.random() < 0.7:  # hosts are switched on for whoever comes with work
                delay_ns = self._rng.randint(0, 20) * SECOND
                self._world.after(delay_ns, agent.name, self._on_switched_on, agent)
        work.begin_soon()
        self._after(self._swarm.there_s, self._on_program_leaves, work)
