"""What can go wrong, as a caller sees it: one class per cause, its data as attributes.

Rules of this file: an error's constructor takes plain data and makes the text from it, and `FIELDS`
names these data in order. So every error pickles, and travels as plain data where pickle may not.
"""

from __future__ import annotations

import signal
from collections.abc import Mapping, Sequence
from concurrent.futures import CancelledError
from typing import Any, ClassVar, Final, cast

from evener.texts import plural, printable, signal_text
from evener_wire.errors import EvenerError, PeerError, UsageError

__all__ = [
    "BadArguments",
    "BrokerRefused",
    "BrokerUnreachable",
    "ClientClosed",
    "EvenerError",
    "LoadError",
    "NotLoadable",
    "NotSendable",
    "PayloadTooLarge",
    "PeerError",
    "QueueFull",
    "RemoteError",
    "RemoteTraceback",
    "StreamRestarted",
    "TaskCancelled",
    "TaskError",
    "TaskLost",
    "TaskRejected",
    "TaskTimeout",
    "UnknownFunction",
    "UnknownTask",
    "UsageError",
]


# Lines of a dead worker's output that the error repeats; the log of its agent has all.
_LINES_MAX: Final = 5
_STACK_MAX: Final = 12
_STACK: Final = "(most recent call first)"  # the head of a stack of faulthandler
_NOT_THEIRS: Final = (
    "/evener/execution.py",
    "/evener_worker/",
    "<frozen runpy>",
    "Extension modules:",
)


class _Told(EvenerError):
    """An error that can be made again from its `FIELDS`."""

    FIELDS: ClassVar[tuple[str, ...]] = ()

    def __reduce__(self) -> tuple[Any, ...]:
        extra = {key: value for key, value in self.__dict__.items() if key not in self.FIELDS}
        return type(self), tuple(getattr(self, name) for name in self.FIELDS), extra


# --- How a task can end other than with its result ------------------------------------------------


class TaskError(_Told):
    """Base of what is raised when a task ended without a result; the subclasses say how."""


class RemoteError(TaskError):
    """Raised when the function raised an exception that cannot be raised here as what it was.

    Those of Python and of evener travel by their plain `args`, others as pickles, within a machine.
    A pickle makes an exception anew from its `args`: where the class wants other arguments than its
    `__init__` hands to `super().__init__()`, or the link is not trusted, the texts arrive as this.
    `type_name`, `message` and `traceback` are its texts.
    """

    FIELDS = ("type_name", "message", "traceback")

    def __init__(self, type_name: str, message: str = "", traceback: str = "") -> None:
        super().__init__(f"{type_name}: {message}" if message else type_name)
        self.type_name = type_name
        self.message = message
        self.traceback = traceback


class RemoteTraceback(Exception):
    """Never raised: the `__cause__` of a task's exception, with the traceback of the worker."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.text = text

    def __str__(self) -> str:
        return f'\n"""\n{self.text.rstrip()}\n"""'


class TaskCancelled(TaskError, CancelledError):
    """Raised when the result of a task is asked for that was cancelled. `task` is its label."""

    FIELDS = ("task",)

    def __init__(self, task: str = "") -> None:
        super().__init__(f"task {task} was cancelled" if task else "the task was cancelled")
        self.task = task


_LIMITS: Mapping[str, tuple[str, str]] = {
    "run": ("ran longer than its timeout", "timeout="),
    "queue": ("waited in its queue longer than its limit", "expires="),
    "total": ("did not end within its deadline", "deadline="),
    "client": ("did not end within its caller's timeout", "the timeout of result()"),
}


class TaskTimeout(TaskError, TimeoutError):
    """Raised when a task, or the wait for it, exceeded a limit.

    `limit` says which: "run" (option `timeout`), "queue" (`expires`), "total" (`deadline`), or
    "client" (only the caller stopped waiting; the task goes on). `seconds` is 0 where not known.
    """

    FIELDS = ("limit", "seconds", "task")

    def __init__(self, limit: str, seconds: float = 0.0, task: str = "") -> None:
        what, where = _LIMITS.get(limit, (f"exceeded its {limit} limit", "its options"))
        amount = f" of {seconds:g} s" if seconds else ""
        super().__init__(f"task {task or '(unnamed)'} {what}{amount} (change: {where})")
        self.limit = limit
        self.seconds = seconds
        self.task = task

    def __str__(self) -> str:
        return str(self.args[0])


class StreamRestarted(TaskError):
    """Raised where values of a task are read, when another attempt of it began.

    What came so far is void: the values that follow are those of the new attempt, from its first.
    """

    FIELDS = ("task",)

    def __init__(self, task: str = "") -> None:
        super().__init__(f"task {task or '(unnamed)'} began anew: its values so far are void")
        self.task = task


class StreamBroken(TaskError):
    """Raised where values of a task are read, when the rest was dropped.

    This client had no connection for so long that nobody waited for it. The task is done:
    `result()` returns what it returned.
    """

    FIELDS = ("task",)

    def __init__(self, task: str = "") -> None:
        super().__init__(
            f"values of task {task or '(unnamed)'} were dropped while this client was away"
        )
        self.task = task


class TaskLost(TaskError):
    """Raised when a task will not run any more, and not because of what its function raised.

    `reason`: "poison" (it took down as many workers as it may), "unknown" (at_most_once, and nobody
    can tell whether it ran), or another short word of the broker. `facts`: what is known of the
    last worker: worker, pid, signal, exit_code, rss_bytes, limit_bytes, lines, starts, text.
    """

    FIELDS = ("reason", "task", "facts")

    def __init__(self, reason: str, task: str = "", facts: Mapping[str, Any] | None = None) -> None:
        known = dict(facts or {})
        super().__init__(_loss_text(reason, task or "the task", known))
        self.reason = reason
        self.task = task
        self.facts = known


def _loss_text(reason: str, task: str, facts: Mapping[str, Any]) -> str:
    worker, starts = facts.get("worker"), facts.get("starts")
    if not isinstance(worker, str):
        told = facts.get("text")
        return f"{task} is lost: {printable(told)[:500] if isinstance(told, str) else reason}"
    text = f"worker {printable(worker)} died{_death(facts)} while running {task}"
    if isinstance(starts, int) and starts > 0:
        text += f"; started {plural(starts, 'time')}"
    text += f" ({reason})"
    lines = facts.get("lines")
    if isinstance(lines, (tuple, list)) and lines:
        last = _telling([str(line)[:200] for line in cast("Sequence[object]", lines)])
        text += "\nits last output:\n  " + "\n  ".join(map(printable, last))
    return text


def _telling(lines: list[str]) -> list[str]:
    """The last lines; after a crash in C code those that name the place in the user's code."""
    heads = [number for number, line in enumerate(lines) if _STACK in line]
    frames = any(line.startswith("  File ") for line in lines)
    if not heads and not frames:
        return lines[-_LINES_MAX:]
    kept = [line for line in lines if line.strip() and not any(n in line for n in _NOT_THEIRS)]
    first = next((number for number, line in enumerate(kept) if _STACK in line), 0)
    return kept[max(0, first - 2) :][:_STACK_MAX] or lines[-_LINES_MAX:]


def _death(facts: Mapping[str, Any]) -> str:
    number, code, rss = (facts.get(name) for name in ("signal", "exit_code", "rss_bytes"))
    limit = facts.get("limit_bytes")
    parts: list[str] = []
    if isinstance(number, int):
        parts.append(signal_text(number))
    elif isinstance(code, int):
        parts.append(f"exit code {code}")
    if number == signal.SIGKILL and isinstance(rss, int) and rss > 0:
        if isinstance(limit, int) and rss * 10 >= limit * 9:
            of = f"{rss / 2**30:.1f} of {limit / 2**30:.1f} GiB"
            parts.append(f"likely out of memory: RSS {of}")
        else:
            parts.append(f"RSS {rss / 2**30:.1f} GiB")
    return f" ({', '.join(parts)})" if parts else ""


class NotLoadable(TaskError):
    """Raised when what was sent cannot be made again on the other side: a module missing there."""

    FIELDS = ("what", "reason", "worker")

    def __init__(self, what: str, reason: str, worker: str = "") -> None:
        where = f"worker {worker}" if worker else "this process"
        super().__init__(f"{where} cannot load {what}: {reason}")
        self.what = what
        self.reason = reason
        self.worker = worker


# --- What the broker did not take -----------------------------------------------------------------


class TaskRejected(TaskError):
    """Raised when the broker did not take a task; `code` and `text` are its words."""

    FIELDS = ("code", "text")

    def __init__(self, code: str, text: str) -> None:
        super().__init__(text or code)
        self.code = code
        self.text = text


class UnknownFunction(TaskError):
    """Raised when no worker knows a function. `closest` are names that look alike."""

    FIELDS = ("name", "closest", "workers", "functions")

    def __init__(
        self, name: str, closest: Sequence[str] = (), workers: int = 0, functions: int = 0
    ) -> None:
        text = f'no worker knows "{name}".'
        if closest:
            text += f" Closest: {', '.join(closest)}."
        if workers:
            text += f" Known on {plural(workers, 'worker')}: {plural(functions, 'function')}"
            text += " (evener ls functions)."
        super().__init__(f"{text} Did you restart the workers after adding it?")
        self.name = name
        self.closest = tuple(closest)
        self.workers = workers
        self.functions = functions


class UnknownTask(TaskError):
    """Raised when the broker has no task of this id to tell about. `text` are its words."""

    FIELDS = ("task", "text")

    def __init__(self, task: str = "", text: str = "") -> None:
        super().__init__(
            f"{text or f'the broker has no task {task}'}. Ended tasks are kept for a time only: "
            "what was done for an hour at most, what failed, got lost or expired for a week"
        )
        self.task = task
        self.text = text


class QueueFull(TaskError):
    """Raised when a bound of the broker or client is reached and the caller chose not to wait."""

    FIELDS = ("text",)

    def __init__(self, text: str = "as many tasks are open as may be") -> None:
        super().__init__(text)
        self.text = text


# --- The connection -------------------------------------------------------------------------------


class BrokerUnreachable(_Told):
    """Raised when no broker answered at `address`; `reason` says what happened instead."""

    FIELDS = ("address", "reason")

    def __init__(self, address: str, reason: str = "no answer") -> None:
        super().__init__(
            f"no broker at {address}: {reason}. Is it running? (start one: evener up module:app)"
        )
        self.address = address
        self.reason = reason


class BrokerRefused(_Told):
    """Raised when the broker refused the session; `code` is a word for programs."""

    FIELDS = ("code", "text", "address")

    def __init__(self, code: str, text: str = "", address: str = "") -> None:
        where = f" at {address}" if address else ""
        super().__init__(f"the broker{where} refused the connection: {text or code}")
        self.code = code
        self.text = text
        self.address = address


class ClientClosed(_Told, RuntimeError):
    """Raised when a client is used after `close()`, or was closed while a task was open."""

    FIELDS = ("text",)

    def __init__(self, text: str = "the client is closed") -> None:
        super().__init__(text)
        self.text = text


# --- What the caller handed in --------------------------------------------------------------------


class BadArguments(_Told, UsageError, TypeError):
    """Raised when the arguments of a call do not fit the signature of its function."""

    FIELDS = ("function", "reason")

    def __init__(self, function: str, reason: str) -> None:
        super().__init__(f"{function}() {reason}")
        self.function = function
        self.reason = reason


class NotSendable(_Told, UsageError, TypeError):
    """Raised when an argument, a result or a function cannot travel.

    `what` names it with its place, `type_name` the type at fault, `reason` why and the remedy.
    """

    FIELDS = ("what", "type_name", "reason")

    def __init__(self, what: str, type_name: str, reason: str) -> None:
        super().__init__(f"cannot send {what}: {type_name} {reason}")
        self.what = what
        self.type_name = type_name
        self.reason = reason


class PayloadTooLarge(_Told, UsageError):
    """Raised when an argument list or result is larger than a payload may be."""

    FIELDS = ("what", "nbytes", "nbytes_max")

    def __init__(self, what: str, nbytes: int, nbytes_max: int) -> None:
        super().__init__(
            f"{what} is {nbytes:,} bytes, more than the {nbytes_max:,} that one payload may have; "
            "split it, or store it where the worker can read it and send the place"
        )
        self.what = what
        self.nbytes = nbytes
        self.nbytes_max = nbytes_max


class LoadError(_Told, UsageError):
    """Raised when an app cannot be imported. `traceback` is that of the user's own code, or ""."""

    FIELDS = ("text", "traceback")

    def __init__(self, text: str, traceback: str = "") -> None:
        super().__init__(text)
        self.text = text
        self.traceback = traceback
