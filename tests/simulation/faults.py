"""Who strikes when: every kind of fault by its own clock, until the world heals.

Rules of this file: one method per kind; each draws from its own stream alone.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from functools import partial
from typing import Final

from tests.simulation.adversary import Adversary
from tests.simulation.agent_node import AgentNode
from tests.simulation.broker_node import BrokerNode
from tests.simulation.client_node import ClientNode
from tests.simulation.disk import Disk
from tests.simulation.disorder import Disorder
from tests.simulation.network import UNANSWERED_NS, Conn, Network
from tests.simulation.node import Node
from tests.simulation.swarm import Swarm
from tests.simulation.tending import Operator
from tests.simulation.world import MS, SECOND, World

_Strike = Callable[[random.Random], str | None]


class Faults:
    """Everything that goes wrong in one seed."""

    def __init__(
        self,
        world: World,
        network: Network,
        swarm: Swarm,
        broker: BrokerNode,
        agents: list[AgentNode],
        clients: list[ClientNode],
        adversaries: list[Adversary],
        disk: Disk | None,
    ) -> None:
        self._world = world
        self._adversaries = adversaries
        self._disk = disk
        self._network = network
        self._swarm = swarm
        self._broker = broker
        self._agents = agents
        self._clients = clients
        self._peers: list[AgentNode | ClientNode] = [*agents, *clients]
        self._healed = False
        self._never_reads: list[Node] = []
        self._operator = Operator(world, agents, clients)
        crash = partial(self._broker_crash, host=False)
        disorder = self._disorder = Disorder(world, network, agents, clients, crash)
        self._strikes: Final[dict[str, _Strike]] = {
            "cut": self._cut,
            "cut unnoticed": self._cut_unnoticed,
            "flapping": self._flapping,
            "ghosts": self._ghosts,
            "stale flush": self._stale_flush,
            "partition": lambda rng: self._partition(rng, up=True, down=True),
            "partition up": lambda rng: self._partition(rng, up=True, down=False),
            "partition down": lambda rng: self._partition(rng, up=False, down=True),
            "broker crash": lambda rng: self._broker_crash(rng, host=False),
            "broker host crash": lambda rng: self._broker_crash(rng, host=True),
            "late peers": disorder.strike,
            "broker pause": lambda rng: self._pause(rng, [broker], 100 * 100 ** rng.random()),
            "broker stall": lambda rng: self._pause(rng, [broker], rng.uniform(20, 1_500)),
            "agent crash": lambda rng: self._crash(rng, agents, host=False),
            "agent host crash": lambda rng: self._crash(rng, agents, host=True),
            "agent pause": lambda rng: self._pause(rng, agents, 200 * 50 ** rng.random()),
            "agent drain": lambda rng: self._agent_stop(rng, at_once=False),
            "agent stop": lambda rng: self._agent_stop(rng, at_once=True),
            "worker kill": self._worker_kill,
            "client crash": lambda rng: self._crash(rng, clients, host=rng.random() < 0.3),
            "client pause": lambda rng: self._pause(rng, clients, 200 * 50 ** rng.random()),
            "client close": self._client_close,
            "slow node": self._slow,
            "suspend": self._suspend,
            "name server stall": self._name_stall,
            "clock step": self._clock_step,
            "disk full": self._disk_full,
            "disk slow": self._disk_slow,
            "rolling restart": self._operator.restart,
            "drain undone": self._operator.drain,
            "adversary": lambda rng: rng.choice(adversaries).strike(rng),
        }
        self._lasting(world.stream("fault/lasting"))
        for kind, mean_s in swarm.mean_s.items():
            self._plan(kind, world.stream(f"fault/{kind}"), mean_s)

    # --- When -------------------------------------------------------------------------------------

    def _lasting(self, rng: random.Random) -> None:
        lasting = self._swarm.lasting
        if "latency tail" in lasting:
            for peer in self._peers:
                self._network.link(peer.name).tail = 0.01 * lasting["latency tail"]
            self._world.fired["latency tail"] += 1
        if "small buffers" in lasting:
            self._network.hwm_down = 3 + int(10 * lasting["small buffers"])
            self._network.hwm_up = 8 + int(40 * lasting["small buffers"])
            self._broker.parked_max = 5
            self._world.fired["small buffers"] += 1
        if "worker dies at its start" in lasting:
            for agent in self._agents:
                agent.start_deaths = 0.3 * lasting["worker dies at its start"]
        if "disk error" in lasting and self._disk is not None:
            self._disk.error_chance = 0.4 * lasting["disk error"]
        if "never reads" in lasting and len(self._clients) > 1:
            client = rng.choice(self._clients)
            self._never_reads.append(client)
            self._world.after(5 * SECOND, client.name, self._on_never_reads, client)

    def _on_never_reads(self, client: ClientNode) -> None:
        self._world.fault("never reads", client.who)
        client.pause(100_000 * SECOND)

    def _plan(self, kind: str, rng: random.Random, mean_s: float) -> None:
        delay_ns = int(rng.expovariate(1 / mean_s) * SECOND)
        self._world.after(delay_ns, "fault", self._on_due, (kind, rng, mean_s))

    def _on_due(self, what: tuple[str, random.Random, float]) -> None:
        if self._healed:
            return
        kind, rng, mean_s = what
        struck = self._strikes[kind](rng)
        if struck is not None:
            self._world.fault(kind, struck)
        self._plan(kind, rng, mean_s)

    # --- Connections ------------------------------------------------------------------------------

    def _some_conn(self, rng: random.Random) -> Conn | None:
        conns = list(self._network.conns)
        return rng.choice(conns) if conns else None

    def _cut(self, rng: random.Random) -> str | None:
        conn = self._some_conn(rng)
        if conn is None:
            return None
        self._network.cut(
            conn,
            dealer_ns=int(MS * 10 ** (rng.random() * 2)),
            router_ns=int(MS * 10 ** (rng.random() * 2)),
        )
        return conn.socket.host

    def _cut_unnoticed(self, rng: random.Random) -> str | None:
        conn = self._some_conn(rng)
        dealer, router = rng.random() < 0.4, rng.random() < 0.4
        if conn is None:
            return None
        self._network.cut_half(conn, dealer=dealer, router=router)
        return f"{conn.socket.host} dealer={dealer} router={router}"

    def _ghosts(self, rng: random.Random) -> str | None:
        """What is on the way when a connection breaks arrives after the next one stands."""
        conn = self._some_conn(rng)
        held_ns = int(rng.uniform(0.05, 1.5) * SECOND)
        ghost_ns = int(300 * MS * 15 ** rng.random())
        if conn is None:
            return None
        self._network.block(conn.socket.host, up=True, down=False)
        self._world.after(held_ns, conn.socket.host, self._on_ghosts, (conn, ghost_ns))
        return conn.socket.host

    def _on_ghosts(self, what: tuple[Conn, int]) -> None:
        conn, ghost_ns = what
        if not self._healed:
            self._network.cut(conn, dealer_ns=MS, router_ns=MS, tail=False, ghost_ns=ghost_ns)
            self._network.unblock(conn.socket.host, up=True, down=False)

    def _stale_flush(self, rng: random.Random) -> str | None:
        conn = self._some_conn(rng)
        count = rng.randint(1, 8)
        if conn is None or not conn.socket.recent:
            return None
        conn.socket.stale = list(conn.socket.recent)[-count:]
        self._network.cut(conn, dealer_ns=MS, router_ns=MS)
        return conn.socket.host

    def _flapping(self, rng: random.Random) -> str | None:
        peer = rng.choice(self._peers)
        for _ in range(rng.randint(3, 12)):
            delay_ns = int(rng.uniform(0.1, 6) * SECOND)
            self._world.after(delay_ns, peer.name, self._on_flap, peer.name)
        return peer.name

    def _on_flap(self, host: str) -> None:
        if not self._healed:
            for conn in self._network.connections_of(host):
                self._network.cut(conn, dealer_ns=MS, router_ns=MS)

    def _partition(self, rng: random.Random, *, up: bool, down: bool) -> str:
        peers = [rng.choice(self._peers)]
        if rng.random() < 0.2:
            peers = [peer for peer in self._peers if rng.random() < 0.5]
        for_ns = int(300 * MS * 40 ** rng.random())
        for peer in peers:
            self._network.block(peer.name, up=up, down=down)
            self._world.after(for_ns, peer.name, self._on_free, (peer.name, up, down))
        return f"{[peer.name for peer in peers]} for {for_ns / 1e9:.1f} s"

    def _on_free(self, what: tuple[str, bool, bool]) -> None:
        name, up, down = what
        if not self._healed:
            self._network.unblock(name, up=up, down=down)

    # --- Processes --------------------------------------------------------------------------------

    def _broker_crash(self, rng: random.Random, *, host: bool) -> str | None:
        down_ns = int(10 * MS * 500 ** rng.random())
        effects = rng.randrange(6) if rng.random() < 0.5 else None
        if not self._broker.alive:
            return None
        if effects is None:
            self._broker.crash(host=host)
        else:
            self._broker.crash_in = effects
        self._world.after(down_ns + 50 * MS, "broker", self._on_restart, self._broker)
        return f"broker for {down_ns / 1e9:.2f} s"

    def _on_restart(self, node: Node) -> None:
        if not node.alive:
            node.start()
        elif node.crash_in is not None:
            self._world.after(SECOND, node.name, self._on_restart, node)

    def _crash(
        self, rng: random.Random, nodes: list[AgentNode] | list[ClientNode], *, host: bool
    ) -> str | None:
        node: Node = rng.choice(nodes)
        down_ns = int(50 * MS * 200 ** rng.random())
        effects = rng.randrange(4) if rng.random() < 0.5 else None
        if not node.alive or node in self._never_reads:
            return None
        if effects is None:
            node.crash(host=host)
        else:
            node.crash_in = effects
        self._world.after(down_ns, node.name, self._on_restart, node)
        return node.who

    def _pause(
        self,
        rng: random.Random,
        nodes: list[AgentNode] | list[ClientNode] | list[BrokerNode],
        for_ms: float,
    ) -> str | None:
        node: Node = rng.choice(nodes)
        if not node.alive:
            return None
        node.pause(int(for_ms * MS))
        return f"{node.who} for {for_ms / 1e3:.2f} s"

    def _agent_stop(self, rng: random.Random, *, at_once: bool) -> str | None:
        agent = rng.choice(self._agents)
        down_ns = int(rng.uniform(0.2, 5) * SECOND)
        if not agent.alive:
            return None
        agent.stop("SIGTERM", at_once=at_once)
        self._world.after(down_ns, agent.name, self._on_supervise, agent)
        return agent.who

    def _on_supervise(self, agent: AgentNode) -> None:
        if not agent.alive:
            agent.start()
        elif not self._healed:
            self._world.after(SECOND, agent.name, self._on_supervise, agent)

    def _worker_kill(self, rng: random.Random) -> str | None:
        agent = rng.choice(self._agents)
        slots = sorted(agent.workers)
        if not slots:
            return None
        worker = agent.workers[rng.choice(slots)]
        what = "running" if worker.run is not None else "idle"
        self._world.hit(f"worker killed while {what}")
        worker.die(signal=9)
        return f"{agent.who}:{worker.slot} {what}"

    def _client_close(self, rng: random.Random) -> str | None:
        client = rng.choice(self._clients)
        if not client.alive or client.over or client in self._never_reads:
            return None
        client.close()
        self._world.after(int(rng.uniform(3, 6) * SECOND), client.name, self._on_renew, client)
        return client.who

    def _on_renew(self, client: ClientNode) -> None:
        if client.alive and client.over:
            client.crash(host=False)
        if not client.alive:
            client.start()

    def _slow(self, rng: random.Random) -> str | None:
        node: Node = rng.choice([self._broker, *self._peers])
        node.slow = rng.choice((2, 10, 50, 100))
        self._world.after(int(rng.uniform(1, 10) * SECOND), node.name, self._on_quick, node)
        return f"{node.who} times {node.slow}"

    def _on_quick(self, node: Node) -> None:
        node.slow = 1

    def _suspend(self, rng: random.Random) -> str | None:
        """A whole host sleeps. The kernels of others give its connections up after a while."""
        node: Node = rng.choice([self._broker, *self._peers])
        for_ns = int(2 * SECOND * 60 ** rng.random())
        if not node.alive or node in self._never_reads:
            return None
        node.suspend(for_ns)
        if for_ns > UNANSWERED_NS:
            hosts = [p.name for p in self._peers] if node is self._broker else [node.name]
            for conn in [c for c in self._network.conns if c.socket.host in hosts]:
                self._network.cut(conn, dealer_ns=UNANSWERED_NS, router_ns=UNANSWERED_NS)
        return f"{node.who} for {for_ns / 1e9:.1f} s"

    def _disk_full(self, rng: random.Random) -> str | None:
        for_ns = int(100 * MS * 100 ** rng.random())
        if self._disk is None:
            return None
        self._disk.fill(for_ns)
        return f"disk for {for_ns / 1e9:.1f} s"

    def _disk_slow(self, rng: random.Random) -> str | None:
        for_ns = int(100 * MS * 100 ** rng.random())
        if self._disk is None:
            return None
        self._disk.slow_down(for_ns)
        return f"disk for {for_ns / 1e9:.1f} s"

    def _name_stall(self, rng: random.Random) -> str:
        peer = rng.choice(self._peers)
        for_ns = int(SECOND * 20 ** rng.random())
        self._network.stall_names(peer.name, for_ns)
        return f"{peer.name} for {for_ns / 1e9:.1f} s"

    def _clock_step(self, rng: random.Random) -> str:
        """Somebody sets the clock on the wall. No core has one, so nothing may change."""
        node: Node = rng.choice([self._broker, *self._peers])
        node.wall_ns += rng.choice((-1, 1)) * int(SECOND * 3e8 ** rng.random())
        return f"{node.who}: {node.wall_ns / 1e9:.0f} s off"

    # --- The end of it ----------------------------------------------------------------------------

    def heal(self) -> None:
        """From now on nothing goes wrong, and everybody who is to be there is there."""
        self._healed = True
        self._world.note("fault", "HEAL")
        for adversary in self._adversaries:
            adversary.leave()
        if self._network.hostility is not None:
            self._network.hostility.on = False
        for peer in self._peers:
            link = self._network.link(peer.name)
            link.tail = 0.0
            link.unnamed_until = 0
            link.since_ns = min(link.since_ns, self._world.now)
            self._network.unblock(peer.name, up=bool(link.blocked_up), down=bool(link.blocked_down))
            while link.blocked_up or link.blocked_down:
                self._network.unblock(peer.name, up=True, down=True)
        for node in (self._broker, *self._peers):
            node.slow = 1
            node.crash_in = None
            if node.is_paused() and node not in self._never_reads:
                node.resume()
        if self._disk is not None:
            self._disk.heal()
        if not self._broker.alive:
            self._broker.start()
        self._operator.heal()
        self._disorder.heal()
        for client in self._clients:
            client.readers.patient = True
        for agent in self._agents:
            agent.start_deaths = 0.0
            self._on_look_after(agent)

    def _on_look_after(self, agent: AgentNode) -> None:
        """A supervisor: an agent that ends, or has no worker left to start, begins anew."""
        if agent.alive and agent.has_given_up():
            agent.crash(host=False)
        if not agent.alive:
            agent.start()
        self._world.after(SECOND, agent.name, self._on_look_after, agent)
