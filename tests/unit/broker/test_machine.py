"""Random lives of a small cluster, judged after every step, and brought to rest at the end.

The world itself checks numbering, fences and single ends; here come conservation (I20), that
nothing is dropped (I6), that poison is bounded (I12), and that everything ends once faults stop
(I19).
"""

from __future__ import annotations

from collections import Counter
from typing import Any

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from evener_broker.transitions import OPEN, TERMINAL, State
from evener_wire import messages as m
from tests.unit.broker.world import CALL, VALUE, Agent, Client, World, options, task_id

FUNCTIONS = ("demo.add", "demo.sub")
MAX_STARTS = 3

_chosen = st.fixed_dictionaries(
    {},
    optional={
        "retries": st.integers(1, 2),
        "retry_delay_ms": st.sampled_from([0, 100, 3_000]),
        "priority": st.sampled_from([0, 9]),
        "at_most_once": st.just(True),
        "deadline_ms": st.sampled_from([50, 2_000, 100_000]),
        "expires_ms": st.sampled_from([50, 2_000]),
        "queue": st.just("other"),
    },
)
_outcome = st.sampled_from([m.DONE, m.DONE, m.DONE, *range(len(m.OUTCOMES))])


class Cluster(RuleBasedStateMachine):
    """Two clients, agents that come and go, a broker that may restart."""

    def __init__(self) -> None:
        super().__init__()
        self.world = self.make_world()
        self.clients = [self.world.client(f"c{n}") for n in range(2)]
        # The epoch in which each client submitted all that is unresolved.
        self.known = dict.fromkeys(self.clients, self.world.core.tables.epoch)
        self.agents: list[Agent] = []
        self.born = 0
        self.submitted: dict[int, tuple[Client, str, m.Options | None]] = {}
        self.losses: Counter[int] = Counter()
        # Results that an agent did not see acknowledged: it tells them again in its next session.
        self.unacked: dict[Agent, list[tuple[Any, ...]]] = {}
        self._agent()

    def make_world(self) -> World:
        """With or without a journal."""
        return World()

    def _agent(self) -> None:
        self.born += 1
        queues = ("default", "other") if self.born % 2 else ("default",)
        functions = FUNCTIONS[: 1 + self.born % 2]
        self.agents.append(self.world.agent(f"a{self.born}", 2, functions, queues))

    def _client(self, pick: int) -> Client | None:
        client = self.clients[pick % len(self.clients)]
        return client if client.sequence is not None else None

    def _live(self, pick: int) -> Agent | None:
        live = [agent for agent in self.agents if agent.sequence is not None]
        return live[pick % len(live)] if live else None

    # --- What may happen --------------------------------------------------------------------------

    @rule(pick=st.integers(0, 1), count=st.integers(1, 5), which=st.integers(0, 1), chosen=_chosen)
    def submit(self, pick: int, count: int, which: int, chosen: dict[str, Any]) -> None:
        client = self._client(pick)
        if client is None:
            return
        first = len(self.submitted)
        numbers = range(first, first + count)
        for number in numbers:
            wanted = options(**chosen) if chosen else None
            self.submitted[number] = client, FUNCTIONS[which], wanted
        client.got(m.Rejected)
        client.submit(*numbers, function=FUNCTIONS[which], **chosen)
        refused = {item[0] for message in client.got(m.Rejected) for item in message.items}
        for number in numbers:
            known = task_id(number) in self.world.core.tables.tasks
            assert known or task_id(number) in refused or client.end(number) != "open", "I6"
            if task_id(number) in refused:
                client.ends[task_id(number)] = (task_id(number), m.TERMINAL_FAILED, b"", None)

    @rule(pick=st.integers(0, 9), which=st.integers(0, 30), outcome=_outcome, us=st.integers(0, 20))
    def attempt_ends(self, pick: int, which: int, outcome: int, us: int) -> None:
        agent = self._live(pick)
        if agent is None or not agent.hand:
            return
        number = agent.numbers()[which % len(agent.hand)]
        message = agent.result(number, outcome, VALUE, us * 1_000)
        item = message.items[0]
        if agent.record.open.get(item[0]) is not None and outcome == m.LOST:
            self.losses[number] += 1
        self.unacked.setdefault(agent, []).append(item)
        agent.say(message)

    @rule(pick=st.integers(0, 9))
    def attempts_start(self, pick: int) -> None:
        agent = self._live(pick)
        if agent is not None and agent.hand:
            agent.starts(*agent.numbers()[: agent.slots])

    @rule(pick=st.integers(0, 9), lost=st.booleans())
    def connection_breaks(self, pick: int, lost: bool) -> None:
        """And with it, perhaps, the last RUN, which its agent never saw."""
        agent = self._live(pick)
        if agent is None:
            return
        agent.vanish()
        if lost and agent.hand:
            agent.hand.popitem()

    @rule(pick=st.integers(0, 9))
    def agent_is_back(self, pick: int) -> None:
        away = [agent for agent in self.agents if agent.sequence is None]
        if away:
            self._back(away[pick % len(away)])

    def _back(self, agent: Agent) -> None:
        unacked = self.unacked.pop(agent, [])
        agent.move()
        agent.hello()
        agent.offer(held=[*agent.held(), *((item[0], item[1]) for item in unacked)])
        if unacked:
            agent.say(m.Result(unacked))

    @rule(pick=st.integers(0, 9))
    def agent_dies(self, pick: int) -> None:
        agent = self._live(pick)
        if agent is not None:
            agent.say(m.Goodbye("killed"))
            agent.sequence = None
            self._bury(agent)

    def _bury(self, agent: Agent) -> None:
        self.agents.remove(agent)
        self.unacked.pop(agent, None)
        self.world.peers.remove(agent)

    @precondition(lambda self: len(self.agents) < 4)
    @rule()
    def agent_comes(self) -> None:
        self._agent()

    @rule(pick=st.integers(0, 9), draining=st.booleans(), slots=st.integers(0, 3))
    def agent_offers(self, pick: int, draining: bool, slots: int) -> None:
        agent = self._live(pick)
        if agent is not None:
            agent.offer(draining=draining, slots=slots)

    @rule(pick=st.integers(0, 1))
    def client_moves(self, pick: int) -> None:
        self.clients[pick].move()
        self._client_back(self.clients[pick])

    def _client_back(self, client: Client) -> None:
        """A client that finds another broker than before submits again what is unresolved."""
        client.hello()
        epoch = self.world.core.tables.epoch
        if self.known[client] == epoch:
            return
        self.known[client] = epoch
        items = [
            (task_id(number), function, CALL, wanted)
            for number, (owner, function, wanted) in self.submitted.items()
            if owner is client and client.end(number) == "open"
        ]
        if items:
            client.got(m.Rejected)
            client.say(m.Submit(items, again=True))
            self.refused_again(client.got(m.Rejected))

    def refused_again(self, refused: list[m.Rejected]) -> None:
        """Of what was submitted again."""
        assert refused == [], "what one broker took the next takes (I5)"

    @rule(pick=st.integers(0, 1))
    def client_leaves(self, pick: int) -> None:
        if self._client(pick) is not None:
            self.clients[pick].vanish()

    @rule(pick=st.integers(0, 1))
    def client_takes(self, pick: int) -> None:
        client = self._client(pick)
        if client is not None:
            client.acknowledge()

    @rule(pick=st.integers(0, 1), which=st.integers(0, 60))
    def client_cancels(self, pick: int, which: int) -> None:
        client = self._client(pick)
        if client is not None:
            client.cancel(which)

    @rule(ms=st.sampled_from([1, 30, 200, 1_600, 6_000]))
    def time_passes(self, ms: int) -> None:
        self.world.pass_ms(ms)

    @rule(ms=st.sampled_from([300, 10_000]))
    def broker_stands_still(self, ms: int) -> None:
        self.world.stand_still_ms(ms)
        self.world.pass_ms(1)  # what peers said meanwhile is read first

    @rule(pick=st.integers(0, 9))
    def noise(self, pick: int) -> None:
        agent = self._live(pick)
        if agent is not None:
            agent.garble()

    @rule(order=st.permutations(["clients", "agents", "time"]), all_of_them=st.booleans())
    def broker_restarts(self, order: list[str], all_of_them: bool) -> None:
        """Who comes back first is chance; some come back later, or never."""
        self.world.restart()
        self.losses.clear()
        for who in order:
            if who == "clients":
                for client in self.clients[: 2 if all_of_them else 1]:
                    self._client_back(client)
            elif who == "agents":
                for agent in self.agents[: 9 if all_of_them else 1]:
                    self._back(agent)
            else:
                self.world.pass_ms(100)

    # --- What must hold ---------------------------------------------------------------------------

    @invariant()
    def nothing_is_lost(self) -> None:
        """I20: accepted = waiting + open + ended and kept + taken."""
        tables = self.world.core.tables
        for number, (client, _, _) in self.submitted.items():
            if self.known[client] != tables.epoch:
                continue
            task = tables.tasks.get(task_id(number))
            assert task is not None or client.end(number) != "open", number
        states = Counter(task.state for task in tables.tasks.values())
        waiting = sum(queue.count for queue in tables.queues.values())
        held = sum(len(agent.open) for agent in tables.agents.values())
        assert states[State.QUEUED] == waiting
        assert sum(states[state] for state in OPEN) == held
        kept = sum(client.ended_tasks for client in tables.clients.values())
        assert sum(states[state] for state in TERMINAL) == kept + tables.retained

    @invariant()
    def poison_is_bounded(self) -> None:
        """I12."""
        assert all(count <= MAX_STARTS for count in self.losses.values())

    @invariant()
    def nobody_idles_beside_work(self) -> None:
        """I19: whoever has a free worker and knows the function gets the task."""
        tables = self.world.core.tables
        for queue in tables.queues.values():
            for task in queue.tasks():
                able = [a for a in queue.idle if task.function in a.functions]
                assert not able, (task, able)

    # --- The end ----------------------------------------------------------------------------------

    def teardown(self) -> None:
        """I19, I20: faults stop, everything ends, and the tables are empty."""
        for client in self.clients:
            client.move()
            self._client_back(client)
        for agent in list(self.agents):
            self._back(agent)
            agent.offer(slots=2)
        self.born = 2  # the next one knows everything and serves every queue
        self.agents.append(self.world.agent("last", 2, FUNCTIONS, ("default", "other")))
        for _ in range(300):
            for agent in self.agents:
                if agent.hand:
                    agent.done(*agent.numbers())
            if all(client.end(n) != "open" for n, (client, _, _) in self.submitted.items()):
                break
            self.world.pass_ms(1_000)
        open_ones = [n for n, (client, _, _) in self.submitted.items() if client.end(n) == "open"]
        assert open_ones == [], [*map(self.world.state, open_ones)]
        for client in self.clients:
            client.acknowledge()
        tables = self.world.core.tables
        assert tables.held_tasks() == 0
        assert tables.bytes == tables.open_tasks == 0
        for record in tables.agents.values():
            assert record.held() == record.in_hand_ns == 0


TestCluster = Cluster.TestCase
TestCluster.settings = settings(
    max_examples=50,
    stateful_step_count=40,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
