"""The other side: what a Python program imports that is started by a `CommandWorker`.

    from evener_worker import child

    child.serve(lambda number: 2 * number)

Or, step by step: `ready()`, then `listen()` for messages, `send()`, and `leave()`. Nobody here can
end the parent; when that ends, `listen()` ends too.

Rules of this file: only the standard library, and little of it. From the first call on `print` goes
to stderr, because stdout belongs to the messages. The protocol is told in `docs/commands.md`.
"""

from __future__ import annotations

import json
import os
import sys
import threading
import traceback
from collections.abc import Callable, Iterator
from typing import Any, NoReturn, cast

_LOCK = threading.Lock()
_messages_fd: int | None = None


def ready(**facts: Any) -> None:
    """Say that the work can begin. Call it before anything is printed; `facts` are told along."""
    send({"kind": "ready", **facts})


def listen() -> Iterator[Any]:
    """The parent's messages, one by one, until it wants no more or has ended.

    An item is `{"kind": "item", "id": 7, "value": ...}`: give it to `answer` or `fail`.
    """
    with _LOCK:
        _take_stdout()
    while line := sys.stdin.buffer.readline():
        if line.strip():
            yield json.loads(line)


def send(message: Any) -> None:
    """A message to the parent: anything that JSON can say. From any thread, whole.

    Waits while the parent does not read. Raises `TypeError` or `ValueError` for what JSON cannot
    say. If the parent is gone, this program ends at once, with exit code 1.
    """
    line = json.dumps(message, separators=(",", ":"), allow_nan=False).encode("ascii") + b"\n"
    with _LOCK:
        fd = _take_stdout()
        view = memoryview(line)
        try:
            while view:
                view = view[os.write(fd, view) :]
        except BrokenPipeError:
            os._exit(1)  # nobody is there any more


def answer(message: Any, value: Any) -> None:
    """The result for an item. Waits and raises as `send` does."""
    send({"kind": "result", "id": message["id"], "value": value})


def fail(message: Any, error: BaseException | str) -> None:
    """An error for an item: an exception, or a text. The parent raises it as `RemoteError`."""
    if isinstance(error, str):
        told = {"type": "error", "message": error}
    else:
        lines = traceback.format_exception(error)
        told = {
            "type": type(error).__name__,
            "message": str(error),
            "traceback": "".join(lines),
        }
    send({"kind": "error", "id": message["id"], **told})


def serve(function: Callable[[Any], Any]) -> None:
    """Say ready, and answer each item by what `function` returns for its value, or raises.

    Returns when the parent wants no more. Messages that are no items are ignored.
    """
    ready()
    for message in listen():
        if not _is_item(message):
            continue
        try:
            answer(message, function(message["value"]))
        except Exception as error:  # its own, told to who gave the item
            fail(message, error)


def leave(code: int = 0) -> NoReturn:
    """End this program, by `SystemExit`. That is all a child can do; it cannot end its parent."""
    raise SystemExit(code)


def _is_item(message: Any) -> bool:
    return isinstance(message, dict) and cast("dict[str, Any]", message).get("kind") == "item"


def _take_stdout() -> int:
    """Where messages go: what was stdout. What is stdout from now on ends up in stderr."""
    global _messages_fd
    if _messages_fd is None:
        _messages_fd = os.dup(1)
        os.dup2(2, 1)
    return _messages_fd
