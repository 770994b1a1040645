"""What a client needs of whatever runs its tasks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from evener.future import Future


class Backend(Protocol):
    """Where a client's tasks go: a connection, or the calling process itself."""

    trusted: bool

    def submit(self, future: Future[Any]) -> None:
        """Takes a task on."""
        ...

    def wait(self, future: Future[Any], timeout: float | None) -> bool:
        """Blocks until the future is done, or the time is over."""
        ...

    def cancel(self, futures: Sequence[Future[Any]]) -> None:
        """Asks for these tasks to be stopped."""
        ...

    def cancel_ids(self, task_ids: Sequence[bytes]) -> None:
        """Asks for tasks to be stopped, of whichever client."""
        ...

    def ask(self, what: str, arguments: Mapping[str, Any], timeout: float) -> tuple[bool, Any]:
        """Asks a question about the cluster."""
        ...

    def open_tasks(self) -> int:
        """Tasks that have not ended."""
        ...

    def close(self, timeout: float) -> None:
        """Leaves."""
        ...
