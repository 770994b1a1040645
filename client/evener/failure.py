"""Exceptions as payloads, and back: what a task raised there is raised here, as what it was.

Rules of this file: encoding never fails, whatever the exception does; decoding believes nothing.
A type is made again only if it is Python's or evener's own, or came as pickle on a trusted link;
otherwise its texts arrive as `RemoteError`. All lengths are capped. The payload is the array
`[type, message, traceback, facts, type names, arguments or nil, pickle or nil, notes]`.
"""

from __future__ import annotations

import builtins
import os
import traceback
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Final, NamedTuple

from evener import errors
from evener.errors import RemoteError, RemoteTraceback
from evener.options import qualified_name
from evener.pickling import dump, load
from evener.plain import pack, skim, unpack
from evener.texts import cut, printable, sane, seconds_text
from evener_wire.errors import PeerError
from evener_wire.limits import INLINE_BYTES_MAX, TEXT_CHARS_MAX, TYPE_NAMES_MAX
from evener_wire.messages import Facts, Frames, Payload

MESSAGE_CHARS_MAX: Final = 500
"""Of the message in the broker's records; the payload holds up to `TEXT_CHARS_MAX`."""

_PICKLE_BYTES_MAX: Final = 16 * 1024
_ARGUMENTS_BYTES_MAX: Final = 8 * 1024
_NOTES_MAX: Final = 16
_NOTE_CHARS_MAX: Final = 500
# Where the whole does not fit inline (4 bytes a character): the message, and half of its traceback.
_SHORT_CHARS_MAX: Final = 2_000

# Raised by `next()`, these would end the loop that asks for results, without a word.
_NEVER_REBUILT: Final = (StopIteration, StopAsyncIteration)


class Place(NamedTuple):
    """Where tasks run: facts for the texts of failures."""

    host: str = ""
    pid: int = 0
    worker: str = ""


# --- In the worker --------------------------------------------------------------------------------


def encode_failure(
    error: BaseException, place: Place, run_ns: int | None, *, trusted: bool = True
) -> tuple[bytes, Facts]:
    """The payload of an exception, and the facts of it for the broker's records and `retry_on`."""
    names = _type_names(type(error))
    message, trace = sane(_text(error)), sane(traceback_text(error))
    run_s = None if run_ns is None else run_ns / 1e9
    about = {"host": place.host, "pid": place.pid, "worker": place.worker, "run_s": run_s}
    arguments, pickled = _rebuildable(error, trusted)
    notes = [cut(sane(note), _NOTE_CHARS_MAX) for note in _notes(error)]
    texts = [names[0], cut(message, TEXT_CHARS_MAX), cut(trace, TEXT_CHARS_MAX), about, [*names]]
    payload = pack([*texts, arguments, pickled, notes])
    if len(payload) > INLINE_BYTES_MAX:
        texts[1:3] = [cut(message, _SHORT_CHARS_MAX), cut(trace, 2 * _SHORT_CHARS_MAX)]
        payload = pack([*texts, None, None, []])
    assert len(payload) <= INLINE_BYTES_MAX
    facts = {"type": names[0], "message": message[:MESSAGE_CHARS_MAX], "types": names}
    return payload, facts | ({"worker": place.worker} if place.worker else {})


def _type_names(kind: type) -> tuple[str, ...]:
    names = [sane(qualified_name(base)) for base in kind.__mro__ if base is not object]
    return tuple(names[:TYPE_NAMES_MAX])


def _text(error: BaseException) -> str:
    try:
        return str(error)
    except Exception as broken:
        return f"(its text cannot be made: {type(broken).__name__})"


def _notes(error: BaseException) -> list[str]:
    notes: Any = getattr(error, "__notes__", ())
    if notes.__class__ is not list:
        return []
    return [note for note in notes[:_NOTES_MAX] if isinstance(note, str)]


def _rebuildable(error: BaseException, trusted: bool) -> tuple[list[Any] | None, bytes | None]:
    """Constructor arguments where those are plain and enough, else a pickle where allowed."""
    try:
        made_of = error.__reduce__()
        if _safe_type(qualified_name(type(error))) is type(error) and made_of[0] is type(error):
            arguments = [*made_of[1]]
            if len(pack([arguments])) <= _ARGUMENTS_BYTES_MAX:
                return arguments, None
    except Exception:  # not plain, or a __reduce__ that fails: then as pickle, or as text
        arguments = []
    if not trusted:
        return None, None
    try:
        pickled, buffers = dump(error)
    except Exception:  # then as text
        return None, None
    if buffers or len(pickled) > _PICKLE_BYTES_MAX:
        return None, None
    return None, pickled


# --- Texts ----------------------------------------------------------------------------------------

_PARTS: Final = Path(__file__).resolve().parent, "evener_worker"


def traceback_text(error: BaseException) -> str:
    """The traceback with its whole chain and groups, without evener's own frames on top.

    EVENER_TRACEBACK=full in the environment keeps those.
    """
    try:
        trace = error.__traceback__
        if os.environ.get("EVENER_TRACEBACK") != "full":
            trace = user_frames(trace)
        lines = traceback.format_exception(type(error), error, trace)
    except Exception as broken:  # a user's exception may have properties that raise
        return f"{type(error).__name__} (no traceback: {type(broken).__name__})"
    return "".join(lines)


def user_frames(trace: TracebackType | None) -> TracebackType | None:
    """The part of a traceback that begins with the first frame outside of evener."""
    while trace is not None and _is_ours(trace.tb_frame.f_code.co_filename):
        trace = trace.tb_next
    return trace


def _is_ours(filename: str) -> bool:
    parent = os.path.dirname(filename)
    return parent == str(_PARTS[0]) or f"{os.sep}{_PARTS[1]}{os.sep}" in filename


# --- In the client --------------------------------------------------------------------------------


class _Failure(NamedTuple):
    type_name: str
    message: str
    traceback: str
    about: Mapping[str, Any]
    types: Sequence[str]
    arguments: Sequence[Any] | None
    pickled: bytes | None
    notes: Sequence[str]


def decode_failure(
    payload: Payload, *, trusted: bool, task: str = "", facts: Facts | None = None
) -> Exception:
    """The exception to raise for a failed task; never raises itself.

    `task` is its label for people, such as `demo.add[7f3a]`; of the broker's `facts`, `attempt` and
    `attempts` are told.
    """
    try:
        failure = _read(payload)
    except Exception as problem:
        text = f"the worker's report of a failure cannot be read ({problem})"
        return RemoteError("unknown", text[:_NOTE_CHARS_MAX])
    notes = [*map(printable, failure.notes), _place_note(failure.about, task, facts or {})]
    error = _rebuild(failure, trusted, notes)
    if failure.traceback:
        error.__cause__ = RemoteTraceback(printable(failure.traceback))
    return error


def read_failure(payload: Payload) -> dict[str, Any]:
    """The texts and the place of a failure, of which nothing is made again. Raises `PeerError`."""
    try:
        failure = _read(payload)
    except Exception as error:
        raise PeerError(f"{type(error).__name__}: {error}"[:_NOTE_CHARS_MAX]) from error
    about = {key: failure.about.get(key) for key in ("worker", "host", "pid")}
    texts = {"type": failure.type_name, "message": failure.message, "traceback": failure.traceback}
    return {**texts, **about, "notes": [*failure.notes]}


def _read(payload: Payload) -> _Failure:
    stream = payload.buffers[0] if isinstance(payload, Frames) else payload
    if len(stream) > INLINE_BYTES_MAX:
        raise PeerError(f"{len(stream)} bytes")
    skim(stream)
    parts = unpack(stream)
    if parts.__class__ is not list or len(parts) < len(_Failure._fields):
        raise PeerError("not an array of eight parts")
    failure = _Failure(*parts[: len(_Failure._fields)])
    texts = [*failure[:3], *failure.types, *failure.notes]
    if not all(type(text) is str and len(text) <= TEXT_CHARS_MAX for text in texts):
        raise PeerError("texts that are none, or too long")
    if type(failure.about) is not dict or len(failure.notes) > _NOTES_MAX:
        raise PeerError("facts that are none")
    return failure


def _rebuild(failure: _Failure, trusted: bool, notes: Sequence[str]) -> Exception:
    try:
        error = _original(failure, trusted)
        if error is not None:
            _add_notes(error, notes)
            return error
    # Whatever a constructor raises when it is handed these arguments: the texts remain.
    except Exception:
        error = None
    texts = (failure.type_name, failure.message, failure.traceback)
    remote = RemoteError(*map(printable, texts))
    _add_notes(remote, notes)
    return remote


def _add_notes(error: Exception, notes: Sequence[str]) -> None:
    given = set(_notes(error))  # a pickled exception brings its own
    for note in notes:
        if note not in given:
            error.add_note(note)


def _original(failure: _Failure, trusted: bool) -> Exception | None:
    error: object = None
    if type(failure.pickled) is bytes and trusted:
        error = load(failure.pickled)
    elif failure.arguments is not None:
        kind = _safe_type(failure.type_name)
        error = kind(*failure.arguments) if kind is not None else None
    if isinstance(error, Exception) and not isinstance(error, _NEVER_REBUILT):
        return error
    return None


def _safe_type(name: str) -> type[Exception] | None:
    """The exception type of this name, if making one is harmless: Python's and evener's own."""
    module, _, short = name.rpartition(".")
    kind: object = None
    if module == "":
        kind = vars(builtins).get(short)
    elif module == errors.__name__ and short in errors.__all__:
        kind = vars(errors).get(short)
    if isinstance(kind, type) and issubclass(kind, Exception):
        return None if issubclass(kind, _NEVER_REBUILT) else kind
    return None


def _place_note(about: Mapping[str, Any], task: str, facts: Facts) -> str:
    worker = about.get("worker") or about.get("host") or "(unknown)"
    text = f"on worker {printable(str(worker)[:128])}"
    if type(about.get("pid")) is int:
        text += f" (pid {about['pid']})"
    if task:
        text += f", task {task}"
    attempt, attempts = facts.get("attempt"), facts.get("attempts")
    if type(attempt) is int:
        text += f", attempt {attempt}"
        text += f"/{attempts}" if type(attempts) is int else ""
    ran = about.get("run_s")
    if type(ran) is float and 0 <= ran < 1e9:
        text += f", ran {seconds_text(ran)}"
    return text
