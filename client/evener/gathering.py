"""The results of several tasks at once."""

from __future__ import annotations

import time
from collections.abc import Iterable
from typing import Any, TypeVar, overload

from evener.errors import UsageError
from evener.future import Future

T = TypeVar("T")


@overload
def gather(*futures: Future[T], timeout: float | None = None) -> list[T]: ...
@overload
def gather(futures: Iterable[Future[T]], /, *, timeout: float | None = None) -> list[T]: ...


def gather(*futures: Any, timeout: float | None = None) -> list[Any]:
    """The results of several tasks, in the order given: `gather(a, b)`, or `gather([a, b])`.

    Waits `timeout` seconds at most for all together, then raises `TaskTimeout`. Raises what the
    first failed one in that order raised. The others go on, then and after a timeout.
    """
    wanted: list[Future[Any]] = _futures(futures)
    if timeout is None:
        return [future.result() for future in wanted]
    deadline = time.monotonic() + timeout
    return [future.result(max(0.0, deadline - time.monotonic())) for future in wanted]


def _futures(given: tuple[Any, ...]) -> list[Future[Any]]:
    listed = given
    if len(given) == 1 and not isinstance(given[0], Future):
        try:
            listed = (*given[0],)
        except TypeError:
            pass  # not iterable either: named below
    for place, future in enumerate(listed, 1):
        if not isinstance(future, Future):
            raise UsageError(
                f"gather takes futures, as gather(a, b) or gather([a, b]); number {place} is a "
                f"{type(future).__qualname__}"
            )
    return [*listed]
