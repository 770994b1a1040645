"""What one step wants to send: items gather per peer and leave as few messages at its end.

This is where batches come from: nothing waits for a timer, whatever one step produced for a peer
goes out together. Rules: no decisions about tasks; every message of a session is numbered here.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final

from evener_broker.effects import Effect, Level, Log, Send
from evener_broker.facts import facts_bytes
from evener_broker.records import Agent, Client, Session, Task
from evener_broker.transitions import State
from evener_wire import messages as m
from evener_wire.limits import BATCH_BYTES_TARGET, BATCH_ITEMS_MAX

# Unacknowledged TERMINAL messages on the way to one client. More: a client that does not read costs
# more memory. Fewer: a fast client waits for round trips.
FLIGHTS_MAX: Final = 64

# Refusals in one message. Their texts repeat names, so they can be long.
_REJECTED_MAX: Final = 256

_TERMINAL_OF: Final = {
    State.DONE: m.TERMINAL_DONE,
    State.FAILED: m.TERMINAL_FAILED,
    State.CANCELLED: m.TERMINAL_CANCELLED,
    State.EXPIRED: m.TERMINAL_EXPIRED,
    State.LOST: m.TERMINAL_LOST,
}


class Outbox:
    """Caller: the broker core, within a step. `collect` ends the step."""

    def __init__(self) -> None:
        self._effects: list[Effect] = []
        self._runs: dict[Agent, None] = {}
        self._terminals: dict[Client, None] = {}
        self._accepted: list[Session] = []

    # --- Gathering --------------------------------------------------------------------------------

    def log(self, level: Level, text: str) -> None:
        """One line for the operator."""
        self._effects.append(Log(level, text))

    def send(self, session: Session, message: m.Message) -> int:
        """Send one message now; returns its number in the session."""
        sequence = session.sequence
        number = sequence.next_number()
        self._effects.append(Send(session.peer, sequence.session, number, message))
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
        """Tell a client how its task ended."""
        client = task.client
        if not client.outgoing:
            self._terminals[client] = None
        client.outgoing.append(task)

    def more_room(self, client: Client) -> None:
        """The client has a new session, or acknowledged something: send what waited for that."""
        if client.outgoing:
            self._terminals[client] = None

    def accepted(self, session: Session) -> None:
        """Tell the client, once in this step, that its SUBMITs are accepted."""
        if not session.accepted_due:
            session.accepted_due = True
            self._accepted.append(session)

    def rejected(self, session: Session, items: Sequence[tuple[bytes, str, str]]) -> None:
        """Refuse tasks, in messages that stay within the bounds of a head whatever their texts."""
        for start in range(0, len(items), _REJECTED_MAX):
            self.send(session, m.Rejected(items[start : start + _REJECTED_MAX]))

    def attempts(
        self,
        session: Session,
        message: type[m.Recall | m.Cancel],
        items: Sequence[tuple[bytes, int]],
    ) -> None:
        """Send a list of attempts in as many messages as it takes."""
        for start in range(0, len(items), BATCH_ITEMS_MAX):
            self.send(session, message(items[start : start + BATCH_ITEMS_MAX]))

    def forget(self, session: Session) -> None:
        """The session ended: what it still had to get is dropped, and told in its next one."""
        if session.accepted_due:
            self._accepted.remove(session)
            session.accepted_due = False
        record = session.record
        if isinstance(record, Agent):
            record.run_items = []
            record.run_bytes = 0
            self._runs.pop(record, None)
        else:
            told = [task for _, tasks in record.flights for task in tasks]
            record.outgoing.extendleft(reversed(told))
            record.flights.clear()
            self._terminals.pop(record, None)

    # --- Sending ----------------------------------------------------------------------------------

    def collect(self) -> list[Effect]:
        """Everything this step wants done. Work goes first: workers wait for it."""
        for agent in self._runs:
            if agent.run_items:
                self._flush_run(agent)
        self._runs.clear()
        for client in self._terminals:
            self._flush_terminals(client)
        self._terminals.clear()
        for session in self._accepted:
            session.accepted_due = False
            self.send(session, m.Accepted(session.sequence.received))
        self._accepted.clear()
        effects, self._effects = self._effects, []
        return effects

    def _flush_run(self, agent: Agent) -> None:
        assert agent.session is not None
        items, agent.run_items, agent.run_bytes = agent.run_items, [], 0
        self.send(agent.session, m.Run(items))

    def _flush_terminals(self, client: Client) -> None:
        session = client.session
        while session is not None and client.outgoing and len(client.flights) < FLIGHTS_MAX:
            batch = self._cut(client)
            items = [(t.id, _TERMINAL_OF[t.state], t.payload, t.tries.facts) for t in batch]
            client.flights.append((self.send(session, m.Terminal(items)), batch))

    def _cut(self, client: Client) -> list[Task]:
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
        return batch
