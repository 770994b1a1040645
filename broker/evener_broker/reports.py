"""What running attempts say before they end: progress, values, lines, on their way to the client.

Rules of this file: nothing is journaled or waited for. Values are passed on and not kept: their
agent has them until they are taken, and is asked for them again when they may have got lost. Of
progress nothing rests on anything; a client has
one PROGRESS on the way; what it has not taken is replaced by what the task says next, so it costs
an entry for each attempt that runs and says something, whoever reads and whoever does not.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Final

from evener_broker.records import VALUES_DROPPED, Agent, Client, Session, Task
from evener_broker.transitions import Cause, State
from evener_wire import messages as m
from evener_wire.limits import BATCH_ITEMS_MAX, CLIENT_AWAY_NS

if TYPE_CHECKING:
    from evener_broker.tables import Tables


class Report:
    """What a running attempt said last of its progress, and whether its client was told."""

    __slots__ = ("done", "fence", "note", "told", "total")

    def __init__(self, fence: int, done: float, total: float | None, note: str) -> None:
        self.fence: Final = fence
        self.done: Final = done
        self.total: Final = total
        self.note: Final = note
        self.told = False

    def facts(self) -> dict[str, float | str | None]:
        """For people."""
        return {"done": self.done, "total": self.total, "note": self.note}


class Reports:
    """Caller: the broker core. From agents."""

    def __init__(self, tables: Tables) -> None:
        self._tables = tables

    def take(self, session: Session, message: m.Progress) -> None:
        """An agent tells how far its attempts are."""
        tables = self._tables
        agent = session.record
        assert isinstance(agent, Agent)
        for task_id, fence, done, total, note in message.items:
            task = agent.open.get(task_id)
            if task is None or task.fence != fence:
                if agent.orphans.get(task_id) != fence:
                    tables.counters["progress_stale"] += 1
                continue
            if task.state is State.ASSIGNED:
                tables.move(task, Cause.START)
            tables.outbox.telling.note(task, Report(fence, done, total, note))

    def values(self, session: Session, message: m.Values) -> None:
        """Generators yielded. Whoever is away asks for it later; whoever left takes it all."""
        tables = self._tables
        agent = session.record
        assert isinstance(agent, Agent)
        to: dict[Session, list[tuple[bytes, int, int, bool, m.Payload]]] = {}
        unread: list[tuple[bytes, int, int, bool]] = []
        for item in message.items:
            task_id, fence, index, _, _ = item
            task = agent.open.get(task_id)
            if task is None or task.fence != fence:
                if agent.orphans.get(task_id) != fence:
                    tables.counters["values_stale"] += 1
                elif self._is_nobodys(agent, task_id, fence):
                    tables.counters["values_unread"] += 1
                    unread.append((task_id, fence, index + 1, False))
                continue
            if task.state is State.ASSIGNED:
                tables.move(task, Cause.START)
            client = task.client
            client.streams[task_id] = None
            if client.gone or task.tries.facts == VALUES_DROPPED:
                tables.counters["values_unread"] += 1
                unread.append((task_id, fence, index + 1, False))
                task.own_tries().facts = VALUES_DROPPED
            elif client.session is not None:
                to.setdefault(client.session, []).append(item)
        for reader, items in to.items():
            tables.outbox.send(reader, m.Values(items))
        if unread:
            tables.outbox.send(session, m.Taken(unread))

    def _is_nobodys(self, agent: Agent, task_id: bytes, fence: int) -> bool:
        """Whether no client has claimed an attempt of an earlier broker for so long that none will.

        Its generator would wait for ever for somebody to take its values.
        """
        tables = self._tables
        until_ns = agent.late.get(task_id)
        if until_ns is None:
            until_ns = agent.late[task_id] = tables.now_ns + CLIENT_AWAY_NS
            tables.timers.set(until_ns, self._on_nobodys, (agent, task_id, fence))
        return tables.now_ns >= until_ns

    def _on_nobodys(self, subject: tuple[Agent, bytes, int]) -> None:
        agent, task_id, fence = subject
        if agent.session is not None and agent.orphans.get(task_id) == fence:
            self._tables.outbox.send(agent.session, m.Taken([(task_id, fence, 0, True)]))

    def output(self, session: Session, message: m.Output) -> None:
        """Attempts wrote lines that their clients want to see."""
        tables = self._tables
        agent = session.record
        assert isinstance(agent, Agent)
        for item in message.items:
            task = agent.open.get(item[0])
            if task is None or task.fence != item[1] or not task.options.forward_output:
                tables.counters["output_stale"] += 1
                continue
            if task.state is State.ASSIGNED:
                tables.move(task, Cause.START)
            tables.outbox.forwarding.take(task.client, item)

    def taken(self, session: Session, message: m.Taken) -> None:
        """A client took values. What it took of another attempt says nothing of this one."""
        client = session.record
        assert isinstance(client, Client)
        for task_id, fence, upto, again in message.items:
            task = self._tables.tasks.get(task_id)
            if task is None or task.client is not client or task.agent is None:
                self._tables.counters["values_stale"] += 1
            elif task.fence == fence:
                _pass_on(self._tables, task, upto, again)
            elif again:
                _pass_on(self._tables, task, 0, again)


def ask_again(tables: Tables, tasks: Iterable[Task]) -> None:
    """Values of these may have got lost, or nobody takes them any more: agents send them again."""
    for task in tasks:
        _pass_on(tables, task, 0, True)


def _pass_on(tables: Tables, task: Task, upto: int, again: bool) -> None:
    agent = task.agent
    if agent is not None and agent.session is not None and agent.offered:
        tables.outbox.send(agent.session, m.Taken([(task.id, task.fence, upto, again)]))


class Telling:
    """Caller: the outbox. To clients."""

    def __init__(self, send: Callable[[Session, m.Message], int], counters: Counter[str]) -> None:
        self._send = send
        self._counters: Final = counters
        self._due: dict[Client, None] = {}

    def note(self, task: Task, report: Report) -> None:
        """A task said something. What it said before, and nobody was told, is replaced."""
        client = task.client
        before = client.reports.get(task.id)
        if before is not None and not before.told:
            self._counters["progress_replaced"] += 1
        client.reports[task.id] = report
        self._due[client] = None

    def due(self, client: Client) -> None:
        """The client has a new session, or took something."""
        if client.reports:
            self._due[client] = None

    def taken(self, client: Client, upto: int) -> None:
        """The client acknowledged its messages up to this number."""
        if client.report_flight and client.report_flight <= upto:
            client.report_flight = 0

    def lost(self, client: Client) -> None:
        """Its session ended: in the next one it hears the last of each again."""
        client.report_flight = 0
        for report in client.reports.values():
            report.told = False
        self._due.pop(client, None)

    def flush(self) -> None:
        """At the end of a step: one message to each client that has taken the one before."""
        for client in self._due:
            session = client.session
            if session is None or client.report_flight:
                continue
            news = [item for item in client.reports.items() if not item[1].told]
            items = [(i, r.fence, r.done, r.total, r.note) for i, r in news[:BATCH_ITEMS_MAX]]
            if items:
                client.report_flight = self._send(session, m.Progress(items))
            for _, report in news[:BATCH_ITEMS_MAX]:
                report.told = True
        self._due.clear()
