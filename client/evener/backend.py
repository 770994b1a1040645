"""What a client needs of whatever runs its tasks."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

from evener.future import Future
from evener.outputs import OutputLine
from evener.questions import Question


class Backend(Protocol):
    """Where a client's tasks go: a connection, or the calling process itself."""

    trusted: bool

    def submit(self, future: Future[Any]) -> None:
        """Takes a task on."""
        ...

    def wait(self, future: Future[Any], timeout: float | None) -> bool:
        """Blocks until the future is done, or the time is over."""
        ...

    def take_values(self, task_id: bytes, fence: int, upto: int | None) -> None:
        """The program took all values of this attempt below `upto`; None: all that came."""
        ...

    def refuse_after_fork(self) -> None:
        """Raises `ClientClosed` in the child of a fork, if that cannot use it."""
        ...

    def on_output(self, callback: Callable[[OutputLine], object] | None) -> None:
        """Who gets what tasks write that are to tell it; None: stdout and stderr."""
        ...

    def cancel(self, futures: Sequence[Future[Any]]) -> None:
        """Asks for these tasks to be stopped."""
        ...

    def cancel_ids(self, task_ids: Sequence[bytes]) -> None:
        """Asks for tasks to be stopped, of whichever client."""
        ...

    def try_submit(self, future: Future[Any]) -> bool:
        """Takes a task on, unless that would block."""
        ...

    def flush(self, timeout: float | None) -> bool:
        """Waits until all tasks are in the hands of whoever runs them; whether they are."""
        ...

    def ask(self, question: Question, arguments: Mapping[str, Any], timeout: float | None) -> None:
        """Asks a question about the cluster, or about a task."""
        ...

    def open_future(self, task_id: bytes) -> Future[Any] | None:
        """The future of a task of this client that has not ended."""
        ...

    @property
    def durable(self) -> bool | None:
        """Whether accepted tasks survive the death of what keeps them; None: nobody said so."""
        ...

    def open_tasks(self) -> int:
        """Tasks that have not ended."""
        ...

    def close(self, timeout: float) -> None:
        """Leaves."""
        ...
