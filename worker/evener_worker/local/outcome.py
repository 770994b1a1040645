"""What became of one item, and what can go wrong with a source.

Rules of this file: data and sentences.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Generic, TypeVar, cast

from evener_worker.local.errors import PoolError

In = TypeVar("In")
Out = TypeVar("Out")


@dataclass(frozen=True, slots=True)
class Outcome(Generic[In, Out]):
    """One item of a source with its result, or with the exception that came instead.

    `index` counts the items in the order in which they were pulled, from 0. `tries` says how many
    workers began it: more than 1 after workers that failed.
    """

    index: int
    item: In
    value: Out | None = None
    error: BaseException | None = None
    tries: int = 1

    @property
    def ok(self) -> bool:
        """Whether there is a result."""
        return self.error is None

    def result(self) -> Out:
        """The result; raises the exception that came instead."""
        if self.error is not None:
            raise self.error
        return cast("Out", self.value)


class SourceClosed(PoolError, RuntimeError):
    """Raised when something is put into a source that was closed."""

    FIELDS = ()

    def __init__(self) -> None:
        super().__init__("the source is closed: nothing can be put into it any more")


class PoolBroken(PoolError):
    """Raised when no worker of a pool can be started any more; `reason` is what the last one said.

    The exception of that worker is its `__cause__`.
    """

    FIELDS = ("reason",)

    def __init__(self, reason: str) -> None:
        super().__init__(f"no worker of the pool can be started any more: {reason}")
        self.reason = reason
