"""The client in whose `with` block the program stands."""

from __future__ import annotations

import contextvars
import threading
from typing import TYPE_CHECKING, TypeAlias

from evener.errors import UsageError

if TYPE_CHECKING:
    from evener.client import Client

Token: TypeAlias = "contextvars.Token[Client | None]"

_current: contextvars.ContextVar[Client | None] = contextvars.ContextVar(
    "evener_client", default=None
)
_entered: list[Client] = []
_lock = threading.Lock()


def enter(client: Client) -> Token:
    """Makes a client the current one."""
    with _lock:
        _entered.append(client)
    return _current.set(client)


def leave(client: Client, token: Token) -> None:
    """Makes the one before it the current one again."""
    with _lock:
        if client in _entered:
            _entered.remove(client)
    try:
        _current.reset(token)
    except ValueError:  # left in another context than it was entered in
        _current.set(None)


def current_client() -> Client:
    """The innermost one in this thread or asyncio task; in other threads, the last entered one.

    Raises `UsageError` when there is none.
    """
    client = _current.get()
    if client is not None and not client.closed:
        return client
    with _lock:
        if _entered:
            return _entered[-1]
    raise UsageError(
        "there is no client here: call this inside of `with evener.Client():`, or of "
        "`with evener.LocalCluster(workers=4).client():`, or use client.submit(function, ...)"
    )
