"""What is known of one task, as lines for people and as data for programs.

Rules of this file: facts in, texts out. What came from elsewhere is described and never executed:
no pickle is loaded here, whoever sent it.
"""

from __future__ import annotations

import pickletools
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

from evener.cli.output import bytes_text, duration
from evener.cli.tasks import ENDED, death_of
from evener.failure import MESSAGE_CHARS_MAX, read_failure
from evener.payload import ChunkResult, decode_outcome
from evener.pickling import PICKLE_FIRST_BYTE
from evener.texts import cut, plural
from evener_wire.errors import PeerError

Facts = Mapping[str, Any]
Line = tuple[str, str]
"""A label and a text, which may have several lines."""

_REPR_CHARS_MAX: Final = 2_000
_LINES_MAX: Final = 40
_OPCODES_MAX: Final = 1_000


# --- For programs ---------------------------------------------------------------------------------


def as_data(task: Facts) -> dict[str, Any]:
    """The facts of a task, with its result or error readable where that is safe."""
    found = dict(task)
    payload = found.pop("result", None)
    found["result"] = None
    if task["state"] == "done" and isinstance(payload, bytes):
        found["result_is"], value = described(payload)
        if found["result_is"] == "plain":
            found["result"] = value
    elif task["state"] == "failed":
        found["error"] = error_of(task, payload)
    return found


def described(payload: bytes) -> tuple[str, Any]:
    """("plain", value) for plain data; else what it is, and None."""
    if payload[:1] == bytes([PICKLE_FIRST_BYTE]):
        kind = _pickled_type(payload)
        return f"pickle of {bytes_text(len(payload))}" + (f", of type {kind}" if kind else ""), None
    try:
        value = decode_outcome(payload, trusted=False)
    except PeerError as error:
        return f"not readable ({error})", None
    if isinstance(value, ChunkResult):
        failed = f", {plural(len(value.failures), 'failure')}" if value.failures else ""
        return f"chunk of {plural(len(value.values), 'result')}{failed}", None
    return "plain", value


def _pickled_type(payload: bytes) -> str | None:
    """The first class that a pickle names, read without loading it."""
    texts: list[str] = []
    try:
        for number, (opcode, argument, _) in enumerate(pickletools.genops(payload)):
            if opcode.name == "GLOBAL":
                return str(argument).replace(" ", ".")
            if opcode.name == "STACK_GLOBAL" and len(texts) >= 2:
                return ".".join(texts[-2:])
            if "UNICODE" in opcode.name:
                texts.append(str(argument))
            if number > _OPCODES_MAX:
                break
    # Bytes that are no pickle: whatever the reader of opcodes stumbles over.
    except Exception:
        return None
    return None


def error_of(task: Facts, payload: object) -> dict[str, Any]:
    """What a failed task raised: type, message, and traceback and place where they are known."""
    facts: Facts = task.get("facts") or {}
    error: dict[str, Any] = {"type": facts.get("type"), "message": facts.get("message")}
    if facts.get("reason") == "unknown_function":
        return {"type": "evener.errors.UnknownFunction", "message": facts.get("text")}
    if isinstance(payload, bytes) and payload:
        try:
            error.update(read_failure(payload))
        except PeerError as problem:
            error["traceback"] = f"(cannot be read: {problem})"
    return error


# --- For people -----------------------------------------------------------------------------------


def as_lines(task: Facts) -> Iterator[Line]:
    """What `evener show` prints."""
    options: Facts = task.get("options") or {}
    yield "function", str(task["function"])
    yield "state", _state(task)
    yield "client", str(task.get("client") or "-")
    yield "queue", f"{task['queue']}, priority {task['priority']}"
    unusual = [f"{name}={value}" for name, value in options.items() if _is_unusual(name, value)]
    if unusual:
        yield "options", ", ".join(unusual)
    yield "attempts", _attempts(task)
    if not task.get("saved", True):
        yield "journal", "not written yet"
    yield from _end(task)


def _state(task: Facts) -> str:
    state, since = str(task["state"]), duration(task.get("since_ms"))
    if state in ENDED:
        kept = "" if task.get("retained", True) else "; its client does not have that yet"
        return f"{state}, {since} ago{kept}"
    where = f" on host {task['host']}" if task.get("host") else ""
    return f"{state}{where} for {since}"


def _is_unusual(name: str, value: object) -> bool:
    from evener_wire.messages import DEFAULT_OPTIONS

    usual = getattr(DEFAULT_OPTIONS, name, None)
    if isinstance(usual, tuple):  # a list, once it has been msgpack
        return bool(value)
    return name not in ("queue", "priority") and value != usual


def _attempts(task: Facts) -> str:
    parts = [plural(task.get("failures", 0), "failure")] if task.get("failures") else []
    if task.get("starts"):
        parts.append(f"{plural(task['starts'], 'start')} that took the worker down")
    return f"{task.get('attempt', 0)}" + (f" ({', '.join(parts)})" if parts else "")


def _end(task: Facts) -> Iterator[Line]:
    facts: Facts = task.get("facts") or {}
    state, payload = task["state"], task.get("result")
    if state == "done":
        yield "result", _result(task, payload)
    elif state == "failed":
        error = error_of(task, payload)
        yield "error", cut(f"{error['type']}: {error['message']}", MESSAGE_CHARS_MAX)
        if error.get("worker"):
            yield "worker", f"{error['worker']} (pid {error.get('pid', '?')})"
        if error.get("traceback"):
            yield "traceback", str(error["traceback"]).rstrip()
    elif state == "expired":
        amount = f"{facts.get('ms', 0) / 1000:g} s"
        yield "limit", f"{facts.get('limit', '?')} of {amount}"
    elif state == "lost":
        yield from _certificate(facts)


def _result(task: Facts, payload: object) -> str:
    if not isinstance(payload, bytes):
        return f"{bytes_text(task.get('result_bytes'))}, too large to be shown: evener result"
    kind, value = described(payload)
    return cut(repr(value), _REPR_CHARS_MAX) if kind == "plain" else kind


def _certificate(facts: Facts) -> Iterator[Line]:
    """What is known of the death of the last worker."""
    told = f": {facts['text']}" if facts.get("text") else ""
    yield "reason", f"{facts.get('reason', 'unknown')}{told}"
    if facts.get("worker"):
        pid = f" (pid {facts['pid']})" if facts.get("pid") else ""
        age = facts.get("age_ms")
        lived = "" if age is None else f", {duration(age)} old"
        yield "worker", f"{facts['worker']}{pid}{lived}"
    if how := death_of(facts):
        ran = facts.get("ran_ms")
        after = "" if ran is None else f", after the task ran for {duration(ran)}"
        yield "death", f"{how}{after}"
    if facts.get("rss_bytes"):
        limit = facts.get("limit_bytes")
        of = f" of {bytes_text(limit)}" if limit else ""
        yield "memory", f"{bytes_text(facts['rss_bytes'])}{of}"
    lines: Sequence[object] = facts.get("lines") or ()
    if lines:
        yield "last output", "\n".join(str(line) for line in lines[-_LINES_MAX:])
