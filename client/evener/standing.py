"""How a connection stands, and small wishes to it.

Rules of this file: what is read, without its lock, may be a moment old. A wish is one event of one
turn.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence, Sized
from typing import Any

from evener.errors import ClientClosed
from evener.future import Future
from evener.outputs import OutputLine, Outputs
from evener.session import ClientSession
from evener.session_records import CancelAsked, Event, State, Took
from evener.settling import ids_of


class Standing:
    """Caller: any thread."""

    def __init__(self, session: ClientSession, inbox: Sized) -> None:
        self._session = session
        self._submitted = inbox
        self._pid = os.getpid()
        self.outputs = Outputs()
        """What tasks write that are to tell it."""

    @property
    def state(self) -> State:
        """What the session has of a broker now."""
        return self._session.state

    @property
    def refusal(self) -> tuple[str, str] | None:
        """Why the broker refused the session, if it did: (code, text)."""
        return self._session.refusal

    @property
    def durable(self) -> bool | None:
        """Whether the broker keeps accepted tasks in a journal; None: it never said welcome."""
        welcome = self._session.welcome
        return None if welcome is None else welcome.durable

    def open_tasks(self) -> int:
        """Tasks that have not ended."""
        return len(self._session.tasks) + len(self._submitted)

    def is_delivered(self) -> bool:
        """Whether the broker has accepted or rejected everything, as far as is known here."""
        return not self._submitted and not self._session.tasks.undelivered()

    def refuse_after_fork(self) -> None:
        """Raises `ClientClosed` in the child of a fork: socket and thread are the parent's."""
        if self._pid != os.getpid():
            raise ClientClosed("the client was made before a fork; make one in each process")


class Wishes(Standing):
    """Caller: any thread."""

    def _turn(self, events: list[Event], *, tick: bool = False) -> None:
        raise NotImplementedError

    def cancel(self, futures: Sequence[Future[Any]]) -> None:
        """Asks the broker to stop these tasks."""
        self.cancel_ids(ids_of(futures))

    def cancel_ids(self, task_ids: Sequence[bytes]) -> None:
        """Asks the broker to stop tasks, of whichever client."""
        self.refuse_after_fork()
        self._turn([CancelAsked(task_ids)])

    def on_output(self, callback: Callable[[OutputLine], object] | None) -> None:
        """Who gets what tasks write; None: stdout and stderr."""
        self.outputs.callback = callback

    def take_values(self, task_id: bytes, fence: int, upto: int | None) -> None:
        """Tells the broker which values of a task were taken."""
        self._turn([Took(task_id, fence, upto)])
