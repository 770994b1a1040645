"""Questions of clients that an agent has to answer: passed on, and the answer passed back.

Every question ends, with the agent's answer or with a text that says why there is none: it took too
long, its session ended, there are too many. The broker does not look into answers. Which agent is
meant, and what it is asked, is decided per question by the table at the end. Changes: nothing but
its own list of open questions.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Final, NamedTuple

import msgpack

from evener_broker.finding import find_host, find_open_task, find_worker, is_beginning
from evener_broker.records import Agent, Session
from evener_broker.tables import Tables
from evener_wire import messages as m
from evener_wire.limits import MIB, SECOND_NS

# Open questions of one client, and of all. More: a client that asks without end costs agents more.
# Fewer: somebody who looks at many workers at once is refused.
CLIENT_QUESTIONS_MAX: Final = 32
QUESTIONS_MAX: Final = 512

# How long an agent may take; it has limits of its own, which are shorter (a stack: 2 s). Longer:
# the client gives up first, and does not learn why.
ANSWER_NS: Final = 4 * SECOND_NS

# Of one answer. Larger: who asks many agents makes the broker hold more.
_ANSWER_BYTES_MAX: Final = 4 * MIB

_TEXT_CHARS: Final = 200


class Asked(NamedTuple):
    """A question on its way: who asked it, under which number, and in which session it went on."""

    client: Session
    number: int
    agent: Session


Target = tuple[Agent, m.Facts]


class Relay:
    """Caller: the broker core."""

    def __init__(self, tables: Tables) -> None:
        self._tables = tables
        self._open: dict[int, Asked] = {}
        # Not used twice while this broker lives, so that late answers meet nothing.
        self._last = 0

    @property
    def questions(self) -> Iterable[str]:
        """What it passes on."""
        return _TARGETS

    def take(self, session: Session, query: m.Query) -> bool:
        """Pass a question of a client on, or refuse it; False if it is no question for an agent."""
        find = _TARGETS.get(query.what)
        if find is None:
            return False
        try:
            agent, arguments = find(self._tables, query.arguments)
            self._ask(session, query, agent, arguments)
        except ValueError as error:
            self._refuse(session, query.number, str(error))
        return True

    def _ask(self, session: Session, query: m.Query, agent: Agent, arguments: m.Facts) -> None:
        if agent.session is None:
            raise ValueError(f"the agent on {agent.name} is not connected at the moment")
        mine = sum(asked.client is session for asked in self._open.values())
        if mine >= CLIENT_QUESTIONS_MAX or len(self._open) >= QUESTIONS_MAX:
            raise ValueError(
                f"too many questions wait for agents: {mine} of this client, {len(self._open)} in "
                f"all; ask again when some are answered"
            )
        self._last += 1
        self._open[self._last] = Asked(session, query.number, agent.session)
        self._tables.counters["questions_relayed"] += 1
        self._tables.timers.set(self._tables.now_ns + ANSWER_NS, self._on_late, self._last)
        self._tables.outbox.send(agent.session, m.Query(self._last, query.what, arguments))

    # --- How a question ends ----------------------------------------------------------------------

    def answered(self, session: Session, answer: m.Answer) -> None:
        """An agent answers. What nobody waits for any more is counted and ignored."""
        asked = self._open.get(answer.number)
        if asked is None or asked.agent is not session:
            self._tables.counters["answers_stale"] += 1
            return
        del self._open[answer.number]
        if len(answer.body) > _ANSWER_BYTES_MAX:
            text = f"the answer of the agent on {session.record.name} is too large"
            self._refuse(asked.client, asked.number, f"{text} ({len(answer.body):,} bytes)")
        elif self._is_open(asked.client):
            message = m.Answer(asked.number, answer.ok, answer.body)
            self._tables.outbox.send(asked.client, message)

    def _on_late(self, number: int) -> None:
        asked = self._open.pop(number, None)
        if asked is not None:
            text = f"the agent on {asked.agent.record.name} did not answer within"
            self._refuse(asked.client, asked.number, f"{text} {ANSWER_NS / SECOND_NS:g} s")

    def look(self) -> None:
        """At the end of each step: whose agent or client is gone?"""
        if not self._open:
            return
        for number, asked in list(self._open.items()):
            if not self._is_open(asked.client):
                del self._open[number]  # it asks again in its next session
            elif not self._is_open(asked.agent):
                del self._open[number]
                text = f"the agent on {asked.agent.record.name} lost its connection"
                self._refuse(asked.client, asked.number, f"{text} before it answered")

    def _refuse(self, session: Session, number: int, text: str) -> None:
        if self._is_open(session):
            body: bytes = msgpack.packb(text)
            self._tables.outbox.send(session, m.Answer(number, False, body))

    def _is_open(self, session: Session) -> bool:
        return self._tables.sessions.get(session.peer) is session

    # --- For tests --------------------------------------------------------------------------------

    def check(self) -> None:
        """Whoever waits is connected, and so is who is asked."""
        assert len(self._open) <= QUESTIONS_MAX
        for asked in self._open.values():
            assert self._is_open(asked.client), asked
            assert self._is_open(asked.agent), asked


# --- Whom a question is for -----------------------------------------------------------------------


def _stack_target(tables: Tables, arguments: m.Facts) -> Target:
    """`worker`: its name, pid or host/pid, or the beginning of the id of the task that it runs."""
    text = arguments.get("worker")
    if not isinstance(text, str) or not text:
        raise ValueError("which worker? Give a pid, host/pid, or the id of a running task")
    worker = find_worker(tables, text)
    if worker is not None:
        pid = worker.pid()
        if pid is None:
            raise ValueError(f"worker {text[:_TEXT_CHARS]} has no process at the moment")
        return worker.agent, {"pid": pid}
    task = find_open_task(tables, text) if is_beginning(text) else None
    if task is None:
        raise ValueError(
            f'no worker has the pid or name "{text[:_TEXT_CHARS]}", and no running task has such '
            f"an id (evener ls workers shows who is there)"
        )
    assert task.agent is not None
    return task.agent, {"task": task.id, "fence": task.fence}


def _worker_target(tables: Tables, arguments: m.Facts) -> Target:
    """`worker`: its name, pid or host/pid."""
    text = arguments.get("worker")
    if not isinstance(text, str) or not text:
        raise ValueError("which worker? Give a pid, host/pid or name")
    worker = find_worker(tables, text)
    pid = None if worker is None else worker.pid()
    if worker is None or pid is None:
        raise ValueError(
            f'no worker has the pid or name "{text[:_TEXT_CHARS]}" (evener ls workers shows who is '
            f"there)"
        )
    return worker.agent, {"pid": pid}


def _host_target(tables: Tables, arguments: m.Facts) -> Target:
    """`host`: the name of an agent, or its instance; the rest is for the agent."""
    text = arguments.get("host")
    if not isinstance(text, str) or not text:
        raise ValueError("which host? Give its name, as evener ls hosts shows it")
    agent = find_host(tables, text)
    if agent is None:
        raise ValueError(
            f'no host has the name "{text[:_TEXT_CHARS]}" (evener ls hosts shows who is there)'
        )
    return agent, {name: value for name, value in arguments.items() if name != "host"}


_TARGETS: Final[dict[str, Callable[[Tables, m.Facts], Target]]] = {
    "care": _host_target,
    "drain": _host_target,
    "logs": _host_target,
    "ping": _worker_target,
    "restart": _host_target,
    "scale": _host_target,
    "stack": _stack_target,
}
