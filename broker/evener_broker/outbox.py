"""What one step wants to send: items gather per peer and leave as few messages at its end.

This is where batches come from: nothing waits for a timer, whatever one step produced for a peer
goes out together. Rules: no decisions about tasks; every message of a session is numbered here.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final

from evener_broker.effects import Effect, Level, Send
from evener_broker.facts import facts_bytes
from evener_broker.forwarding import Forwarding
from evener_broker.logbook import LogBook
from evener_broker.records import Agent, Client, Session, Task
from evener_broker.reports import Telling
from evener_broker.transitions import TERMINAL_CODES
from evener_broker.waiting import Waiting
from evener_wire import messages as m
from evener_wire.limits import (
    BATCH_BYTES_TARGET,
    BATCH_ITEMS_MAX,
    FLIGHT_BYTES_MAX,
    FLIGHTS_MAX,
)

# Refusals in one message. Their texts and facts repeat names, so they can be long.
_REJECTED_MAX: Final = 256


class Outbox:
    """Caller: the broker core, within a step. `collect` ends the step."""

    def __init__(self, logbook: LogBook) -> None:
        self.logbook: Final = logbook
        self._effects: list[Effect] = []
        self._runs: dict[Agent, None] = {}
        self._terminals: dict[Client, None] = {}
        self._accepted: dict[Session, int] = {}
        self._cancels: dict[Session, list[tuple[bytes, int]]] = {}
        self.waiting: Final = Waiting(self.send)
        self.telling: Final = Telling(self.send, logbook.counters)
        self.forwarding: Final = Forwarding(self.send, logbook.counters)
        # Whether any task so far had its client ask for what it writes.
        self.forwards = False
        # The last transaction on disk: what leaves may rely on it, and on none later.
        self.committed = 0

    # --- Gathering --------------------------------------------------------------------------------

    def log(self, level: Level, text: str, about: bytes | None = None) -> None:
        """One line for the operator; `about` is the peer or instance that causes it, if any."""
        line = self.logbook.line(level, text, about)
        if line is not None:
            self._effects.append(line)

    def perform(self, effect: Effect) -> None:
        """Have something else done."""
        self._effects.append(effect)

    def send(self, session: Session, message: m.Message) -> int:
        """Send one message now; returns its number in the session."""
        sequence = session.sequence
        number = sequence.next_number()
        self._effects.append(Send(session.peer, sequence.session, number, message, self.committed))
        return number

    def send_outside(self, peer: bytes, message: m.Message) -> None:
        """Send a message that belongs to no session."""
        self._effects.append(Send(peer, 0, 0, message))

    def run(self, agent: Agent, item: tuple[bytes, int, str, m.Payload, int, int]) -> None:
        """Hand an attempt to an agent."""
        items = agent.run_items
        if not items:
            self._runs[agent] = None
        items.append(item)
        payload = item[3]
        agent.run_bytes += len(payload) + 64 if type(payload) is bytes else m.weight_of(payload)
        if agent.run_bytes >= BATCH_BYTES_TARGET or len(items) >= BATCH_ITEMS_MAX:
            self._flush_run(agent)

    def agents_with_work(self) -> Iterable[Agent]:
        """Who gets work in this step."""
        return self._runs

    def terminal(self, task: Task) -> None:
        """Tell how a task ended: to its client, and to those who asked."""
        if self.waiting.count:
            self.waiting.tell(task)
        client = task.client
        if not client.outgoing:
            self._terminals[client] = None
        client.outgoing.append(task)

    def tell_again(self, session: Session, task: Task) -> None:
        """Repeat an end that the client acknowledged before; it need not acknowledge it again."""
        item = task.id, TERMINAL_CODES[task.state], task.payload, task.tries.facts
        self.send(session, m.Terminal([item]))

    def more_room(self, client: Client) -> None:
        """The client has a new session, or acknowledged something: send what waited for that."""
        if client.outgoing:
            self._terminals[client] = None
        self.telling.due(client)
        self.forwarding.due(client)

    def accepted(self, session: Session, upto: int) -> None:
        """Tell the client, once in this step, that its messages up to this one are accepted."""
        self._accepted[session] = upto

    def rejected(
        self, session: Session, items: Sequence[tuple[bytes, tuple[str, str, m.Facts | None]]]
    ) -> None:
        """Refuse tasks, in messages that stay within the bounds of a head whatever their texts."""
        for start in range(0, len(items), _REJECTED_MAX):
            part = items[start : start + _REJECTED_MAX]
            facts = [refusal[2] for _, refusal in part]
            while facts and facts[-1] is None:
                del facts[-1]
            told = [(task_id, code, text) for task_id, (code, text, _) in part]
            self.send(session, m.Rejected(told, facts))

    def cancel(self, session: Session, attempt: tuple[bytes, int]) -> None:
        """Have an agent stop an attempt. All of one step go together, after the RUNs."""
        self._cancels.setdefault(session, []).append(attempt)

    def attempts(
        self,
        session: Session,
        message: type[m.Recall | m.Cancel],
        items: Sequence[tuple[bytes, int]],
    ) -> None:
        """Send a list of attempts in as many messages as it takes, after the RUNs of this step."""
        record = session.record
        if isinstance(record, Agent) and record.run_items:
            self._flush_run(record)
        for start in range(0, len(items), BATCH_ITEMS_MAX):
            self.send(session, message(items[start : start + BATCH_ITEMS_MAX]))

    def forget(self, session: Session) -> None:
        """The session ended: what it still had to get is dropped, and told in its next one."""
        self._accepted.pop(session, None)
        self._cancels.pop(session, None)
        record = session.record
        if isinstance(record, Agent):
            record.run_items = []
            record.run_bytes = 0
            self._runs.pop(record, None)
        else:
            told = [task for _, tasks in record.flights for task in tasks]
            record.outgoing.extendleft(reversed(told))
            record.flights.clear()
            record.flight_sizes.clear()
            record.flight_bytes = 0
            self._terminals.pop(record, None)
            self.telling.lost(record)
            self.forwarding.lost(record)

    # --- Sending ----------------------------------------------------------------------------------

    def collect(self) -> list[Effect]:
        """Everything this step wants done. Work goes first: workers wait for it."""
        for agent in self._runs:
            if agent.run_items:
                self._flush_run(agent)
        self._runs.clear()
        for session, items in self._cancels.items():
            self.attempts(session, m.Cancel, items)
        self._cancels.clear()
        self.forwarding.flush()
        for client in self._terminals:
            self._flush_terminals(client)
        self._terminals.clear()
        self.telling.flush()
        for session, upto in self._accepted.items():
            self.send(session, m.Accepted(upto))
        self._accepted.clear()
        effects, self._effects = self._effects, []
        return effects

    def _flush_run(self, agent: Agent) -> None:
        assert agent.session is not None
        items, agent.run_items, agent.run_bytes = agent.run_items, [], 0
        self.send(
            agent.session, m.Run(items, self._forwarded(agent, items) if self.forwards else ())
        )

    @staticmethod
    def _forwarded(
        agent: Agent, items: Sequence[tuple[bytes, int, str, m.Payload, int, int]]
    ) -> list[int]:
        """Which of these attempts are to tell what they write."""
        tasks = [agent.open.get(item[0]) for item in items]
        return [
            i for i, task in enumerate(tasks) if task is not None and task.options.forward_output
        ]

    def _flush_terminals(self, client: Client) -> None:
        session = client.session
        while (
            session is not None
            and client.outgoing
            and len(client.flights) < FLIGHTS_MAX
            and client.flight_bytes < FLIGHT_BYTES_MAX
        ):
            batch, size = self._cut(client)
            self.forwarding.finish(session, client, (task.id for task in batch))
            client.flight_sizes.append(size)
            client.flight_bytes += size
            items = [(t.id, TERMINAL_CODES[t.state], t.payload, t.tries.facts) for t in batch]
            client.flights.append((self.send(session, m.Terminal(items)), batch))

    def _cut(self, client: Client) -> tuple[list[Task], int]:
        batch: list[Task] = []
        size = 0
        outgoing = client.outgoing
        while outgoing and size < BATCH_BYTES_TARGET and len(batch) < BATCH_ITEMS_MAX:
            task = outgoing.popleft()
            batch.append(task)
            payload = task.payload
            size += len(payload) + 64 if type(payload) is bytes else m.weight_of(payload)
            if task.tries.facts is not None:
                size += facts_bytes(task.tries.facts)
        return batch, size
