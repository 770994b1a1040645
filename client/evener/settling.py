"""How futures end when no result comes, and what a person is told about it.

Rules of this file: no threads, no locks. A function that ends futures returns those whose callbacks
are to be run.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterable, Sequence
from typing import Any, cast

from evener.errors import BrokerRefused, ClientClosed
from evener.future import Future, rejection_error
from evener.reporting import Progress
from evener.session_records import (
    Abandon,
    Log,
    Reject,
    Reported,
    Resolve,
    State,
    Ticket,
    Took,
    Valued,
)
from evener.texts import plural
from evener_wire.messages import attempt_of


def resolve(effect: Resolve) -> list[Future[Any]]:
    """The broker says how these tasks ended."""
    # The tickets that a connection hands to its session are futures, all of them.
    return Future.settle(cast(Any, effect.endings))


def report(effect: Reported) -> list[Future[Any]]:
    """These tasks said how far they are."""
    due: list[Future[Any]] = []
    for ticket, fence, done, total, note in effect.reports:
        future = _future(ticket)
        if future.reported(Progress(done, total, note, attempt_of(fence))):
            due.append(future)
    return due


def valued(effect: Valued) -> list[Took]:
    """These tasks yielded. Of values that nobody reads any more, the broker is told at once."""
    unread: dict[bytes, int] = {}
    for ticket, fence, payload in effect.values:
        future = _future(ticket)
        if future.valued(fence, payload):
            unread[future.item[0]] = fence
    return [Took(task_id, fence, None) for task_id, fence in unread.items()]


def reject(effect: Reject) -> list[Future[Any]]:
    """The broker did not take these tasks."""
    observed: list[Future[Any]] = []
    for ticket, code, text, facts in effect.tickets:
        future = cast("Future[Any]", ticket)
        observed += future.fail(rejection_error(future.function, code, text, facts))
    return observed


def abandon(effect: Abandon) -> list[Future[Any]]:
    """There is no session any more that could tell how these tasks end."""
    if effect.refusal is not None:
        code, text = effect.refusal
        return [f for t in effect.tickets for f in _future(t).fail(BrokerRefused(code, text))]
    observed: list[Future[Any]] = []
    for ticket in effect.tickets:
        future = _future(ticket)
        observed += future.fail(
            ClientClosed(
                f"the client was closed before task {future.label} had ended; what the broker has "
                "accepted goes on there"
            )
        )
    return observed


def break_off(tickets: Iterable[Ticket], why: str) -> list[Future[Any]]:
    """Evener itself failed."""
    return [future for ticket in tickets for future in _future(ticket).fail(ClientClosed(why))]


def ids_of(futures: Sequence[Future[Any]]) -> list[bytes]:
    """The ids of these tasks."""
    return [future.item[0] for future in futures]


def _future(ticket: Ticket) -> Future[Any]:
    return cast("Future[Any]", ticket)


# --- What a person is told ------------------------------------------------------------------------


def ended_error(state: State, refusal: tuple[str, str] | None, broken: str | None) -> Exception:
    """Why a connection takes no more tasks."""
    if broken is not None:
        return ClientClosed(broken)
    if state is State.REFUSED and refusal is not None:
        return BrokerRefused(*refusal)
    return ClientClosed()


def say_what_runs(future: Future[Any], open_tasks: int) -> None:
    """For somebody who pressed Ctrl-C while waiting for a result: nothing was cancelled."""
    if not future.task_id:
        return  # a question, not a task
    count = max(1, open_tasks)
    more = "" if count == 1 else " ..."
    text = f"left running on the cluster: {plural(count, 'task')}"
    sys.stderr.write(f"{text} (evener cancel {future.task_id[:8]}{more})\n")


def write_line(log: logging.Logger, line: Log) -> None:
    """One line of the session into the program's log."""
    log.log(_LEVELS[line.level], "%s", line.text)


_LEVELS = {
    "debug": logging.DEBUG,
    "info": logging.INFO,
    "warning": logging.WARNING,
    "error": logging.ERROR,
}
