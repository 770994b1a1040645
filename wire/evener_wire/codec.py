"""Messages to frames and back. `decode` is total: any bytes give a message or one `PeerError`.

Rules of this file: no I/O, no clock, no state. Whatever leaves `decode` has the types and bounds
that `messages.py` states, so nobody behind it checks again. Frame 0 is the head, a msgpack array
`[kind, session, number, *fields]`; the other frames are large payloads in the order in which the
head names them. In place of a payload the head holds its bytes, or how many frames it takes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import fields as dataclass_fields
from functools import lru_cache
from typing import Any, Final, NamedTuple, NoReturn

import msgpack

from evener_wire import messages as m
from evener_wire.errors import PeerError
from evener_wire.limits import (
    BATCH_ITEMS_MAX,
    DURATION_NS_MAX,
    FRAMES_MAX,
    FUNCTIONS_MAX,
    HEAD_BYTES_MAX,
    ID_BYTES,
    INLINE_BYTES_MAX,
    MAX_STARTS_MAX,
    MILLISECOND_NS,
    NAME_BYTES_MAX,
    PAYLOAD_BYTES_MAX,
    PRIORITY_MAX,
    PRIORITY_MIN,
    QUEUES_MAX,
    RETRIES_MAX,
    SLOTS_MAX,
    TEXT_CHARS_MAX,
    TYPE_NAMES_MAX,
)

_U63: Final = (1 << 63) - 1
_MILLISECONDS_MAX: Final = DURATION_NS_MAX // MILLISECOND_NS
_FACTS_MAX: Final = 32
_WORKERS_MAX: Final = SLOTS_MAX
# Arrays and maps longer than any message needs are refused before they are built.
_ARRAY_MAX: Final = max(BATCH_ITEMS_MAX, FUNCTIONS_MAX, SLOTS_MAX, 65_536)


class Envelope(NamedTuple):
    """A message with its place in a session: `session` 0 and `number` 0 before there is one."""

    session: int
    number: int
    message: m.Message


# --- Encoding -------------------------------------------------------------------------------------


def encode(message: m.Message, session: int = 0, number: int = 0) -> list[m.Buffer]:
    """The frames of a message, head first. Large payloads are not copied."""
    frames: list[m.Buffer] = [b""]

    def take_frames(value: object) -> int:
        if type(value) is m.Frames:
            frames.extend(value.buffers)
            return len(value.buffers)
        raise TypeError(f"cannot encode {type(value).__name__} in {type(message).__name__}")

    fields = [getattr(message, name) for name in _FIELD_NAMES[type(message)]]
    frames[0] = msgpack.packb([message.KIND, session, number, *fields], default=take_frames)
    return frames


# --- Decoding -------------------------------------------------------------------------------------


def decode(frames: Sequence[m.Buffer]) -> Envelope:
    """The message in these frames.

    Raises `PeerError`, and nothing else, for anything that is not one. Time and memory are linear
    in the length, and nothing is built from a length that is only declared.
    """
    if not 1 <= len(frames) <= FRAMES_MAX:
        raise PeerError(f"message of {len(frames)} frames (1 to {FRAMES_MAX} allowed)")
    fields = _unpack(frames[0])
    if type(fields) is not tuple or len(fields) < 3:
        raise PeerError("head is not an array of kind, session, number and fields")
    kind, session, number = fields[:3]
    decoder = _DECODERS.get(kind) if type(kind) is int else None
    if decoder is None:
        raise PeerError(f"unknown message kind {_short(kind)}")
    _whole(session, "session")
    _whole(number, "number")
    spare = _Spare(frames)
    try:
        message = decoder(fields[3:], spare)
    except (ValueError, TypeError, IndexError) as error:
        raise PeerError(f"malformed {decoder.__name__[1:]} message: {error}") from error
    if spare.taken != len(frames):
        raise PeerError(f"{len(frames) - spare.taken} frames more than the head names")
    return Envelope(session, number, message)


def _unpack(head: m.Buffer) -> Any:
    view = memoryview(head)
    if view.nbytes > HEAD_BYTES_MAX:
        raise PeerError(f"head of {view.nbytes} bytes (at most {HEAD_BYTES_MAX})")
    try:
        return msgpack.unpackb(
            view,
            use_list=False,
            strict_map_key=True,
            ext_hook=_refuse_ext,
            max_ext_len=0,
            max_array_len=_ARRAY_MAX,
            max_map_len=_FACTS_MAX,
        )
    # msgpack names its errors by a dozen types (also RecursionError, UnicodeDecodeError, OverflowError
    # from a timestamp): whichever it is, the bytes are not a head.
    except Exception as error:
        raise PeerError(f"head is not msgpack: {type(error).__name__}") from error


def _refuse_ext(code: int, data: bytes) -> NoReturn:
    raise PeerError(f"msgpack extension {code} is not allowed")


class _Spare:
    """The frames behind the head, taken in order by the payloads that name them."""

    __slots__ = ("frames", "taken")

    def __init__(self, frames: Sequence[m.Buffer]) -> None:
        self.frames = frames
        self.taken = 1

    def payload(self, value: object) -> m.Payload:
        if type(value) is bytes:
            if len(value) > INLINE_BYTES_MAX:
                raise ValueError(f"inline payload of {len(value)} bytes")
            return value
        if type(value) is not int or not 1 <= value <= len(self.frames) - self.taken:
            raise ValueError("payload is neither bytes nor a count of frames that came along")
        payload = m.Frames(self.frames[self.taken : self.taken + value])
        self.taken += value
        if payload.nbytes > PAYLOAD_BYTES_MAX:
            raise ValueError(f"payload of {payload.nbytes} bytes")
        return payload


# --- Checks of single values: each returns its value, or raises ValueError ------------------------


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 40 else text[:37] + "..."


def _whole(value: object, what: str, most: int = _U63) -> int:
    if type(value) is not int or not 0 <= value <= most:
        raise PeerError(f"{what} is not a whole number up to {most}: {_short(value)}")
    return value


def _flag(value: object, what: str) -> bool:
    if type(value) is not bool:
        raise ValueError(f"{what} is not true or false")
    return value


def _text(value: object, what: str, most: int = TEXT_CHARS_MAX) -> str:
    if type(value) is not str or len(value) > most:
        raise ValueError(f"{what} is not a text of at most {most} characters")
    return value


def _name(value: object, what: str) -> str:
    if type(value) is not str or not is_name(value):
        raise ValueError(f"{what} is not a name: {_short(value)}")
    return value


def _id(value: object, what: str) -> bytes:
    if type(value) is not bytes or len(value) != ID_BYTES:
        raise ValueError(f"{what} is not an id of {ID_BYTES} bytes")
    return value


def _array(value: object, what: str, most: int) -> tuple[Any, ...]:
    if type(value) is not tuple or len(value) > most:
        raise ValueError(f"{what} is not an array of at most {most}")
    return value


_FACT_TYPES: Final = (str, int, float, bool, bytes, type(None), tuple)


def _facts(value: object, what: str) -> m.Facts:
    if type(value) is not dict:
        raise ValueError(f"{what} is not a map")
    for name, fact in value.items():
        if type(name) is not str or len(name) > NAME_BYTES_MAX:
            raise ValueError(f"{what} has a key that is not a name")
        if type(fact) not in _FACT_TYPES:
            raise ValueError(f"{what}[{name!r}] is neither text nor number nor list of them")
        if type(fact) is tuple and any(type(part) not in _FACT_TYPES[:-1] for part in fact):
            raise ValueError(f"{what}[{name!r}] is nested too deep")
    return value


@lru_cache(maxsize=4_096)
def is_name(name: str) -> bool:
    """Whether this may name a function or a queue: printable, no spaces, at most 128 bytes.

    Names reach logs, terminals and records, so nothing that steers those may be in them.
    """
    return (
        0 < len(name) <= NAME_BYTES_MAX
        and len(name.encode("utf-8", "replace")) <= NAME_BYTES_MAX
        and name.isprintable()
        and " " not in name
        and "\ufffd" not in name
    )


@lru_cache(maxsize=1_024)
def _options(value: tuple[Any, ...]) -> m.Options:
    options = m.Options(*value)
    _name(options.queue, "queue")
    if type(options.priority) is not int or not PRIORITY_MIN <= options.priority <= PRIORITY_MAX:
        raise ValueError(f"priority is not within {PRIORITY_MIN} to {PRIORITY_MAX}")
    _whole(options.retries, "retries", RETRIES_MAX)
    for name in _array(options.retry_on, "retry_on", TYPE_NAMES_MAX):
        _text(name, "retry_on", 256)
    if _whole(options.max_starts, "max_starts", MAX_STARTS_MAX) == 0:
        raise ValueError("max_starts is 0")
    for limit in ("retry_delay_ms", "timeout_ms", "expires_ms", "deadline_ms"):
        _whole(getattr(options, limit), limit, _MILLISECONDS_MAX)
    _flag(options.at_most_once, "at_most_once")
    return m.DEFAULT_OPTIONS if options == m.DEFAULT_OPTIONS else options


def _options_or_none(value: object) -> m.Options | None:
    if value is None:
        return None
    return _options(_array(value, "options", len(m.Options._fields)))


# --- One decoder per message ----------------------------------------------------------------------

_Fields = tuple[Any, ...]


def _Hello(fields: _Fields, spare: _Spare) -> m.Hello:
    low, high, role, instance, name, epoch, broker, facts = fields[:8]
    if role not in ("client", "agent"):
        raise ValueError(f"unknown role {_short(role)}")
    return m.Hello(
        _whole(low, "protocol_min", 65_535),
        _whole(high, "protocol_max", 65_535),
        role,
        _id(instance, "instance"),
        _name(name, "name"),
        _whole(epoch, "epoch", m.EPOCH_MAX),
        _id(broker, "broker"),
        _facts(facts, "facts"),
    )


def _Welcome(fields: _Fields, spare: _Spare) -> m.Welcome:
    protocol, epoch, broker, beat, silence, tasks_max, bytes_max, durable, facts = fields[:9]
    return m.Welcome(
        _whole(protocol, "protocol", 65_535),
        _whole(epoch, "epoch", m.EPOCH_MAX),
        _id(broker, "broker"),
        _whole(beat, "heartbeat_ms", _MILLISECONDS_MAX),
        _whole(silence, "silence_ms", _MILLISECONDS_MAX),
        _whole(tasks_max, "tasks_max"),
        _whole(bytes_max, "bytes_max"),
        _flag(durable, "durable"),
        _facts(facts, "facts"),
    )


def _Resync(fields: _Fields, spare: _Spare) -> m.Resync:
    return m.Resync(_text(fields[0], "reason"))


def _Refused(fields: _Fields, spare: _Spare) -> m.Refused:
    return m.Refused(_text(fields[0], "code"), _text(fields[1], "text"))


def _Heartbeat(fields: _Fields, spare: _Spare) -> m.Heartbeat:
    running, workers = fields[:2]
    for task_id, fence, age_ms in _array(running, "running", SLOTS_MAX):
        _id(task_id, "task id")
        _whole(fence, "fence")
        _whole(age_ms, "age_ms")
    for worker in _array(workers, "workers", _WORKERS_MAX):
        _facts(worker, "worker")
    return m.Heartbeat(running, workers)


def _Goodbye(fields: _Fields, spare: _Spare) -> m.Goodbye:
    return m.Goodbye(_text(fields[0], "reason"))


def _Ack(fields: _Fields, spare: _Spare) -> m.Ack:
    return m.Ack(_whole(fields[0], "upto"))


def _Submit(fields: _Fields, spare: _Spare) -> m.Submit:
    # The hot path of every task: checks stand in line, and an item is only built anew if it has to.
    items, again = fields[:2]
    checked = []
    for item in _array(items, "items", BATCH_ITEMS_MAX):
        task_id, function, payload, options = item
        if type(task_id) is not bytes or len(task_id) != ID_BYTES:
            _id(task_id, "task id")
        if type(function) is not str or not is_name(function):
            _name(function, "function")
        if options is not None or type(payload) is not bytes or len(payload) > INLINE_BYTES_MAX:
            item = (task_id, function, spare.payload(payload), _options_or_none(options))
        checked.append(item)
    return m.Submit(checked, _flag(again, "again"))


def _Accepted(fields: _Fields, spare: _Spare) -> m.Accepted:
    return m.Accepted(_whole(fields[0], "upto"))


def _Rejected(fields: _Fields, spare: _Spare) -> m.Rejected:
    for task_id, code, text in _array(fields[0], "items", BATCH_ITEMS_MAX):
        _id(task_id, "task id")
        _text(code, "code", NAME_BYTES_MAX)
        _text(text, "text")
    return m.Rejected(fields[0])


def _Terminal(fields: _Fields, spare: _Spare) -> m.Terminal:
    checked = []
    for item in _array(fields[0], "items", BATCH_ITEMS_MAX):
        task_id, state, payload, facts = item
        if type(task_id) is not bytes or len(task_id) != ID_BYTES:
            _id(task_id, "task id")
        if type(state) is not int or not 0 <= state < len(m.TERMINAL_STATES):
            raise ValueError(f"unknown terminal state {_short(state)}")
        if facts is not None:
            _facts(facts, "facts")
        if type(payload) is not bytes or len(payload) > INLINE_BYTES_MAX:
            item = (task_id, state, spare.payload(payload), facts)
        checked.append(item)
    return m.Terminal(checked)


def _attempts(value: object, most: int = BATCH_ITEMS_MAX) -> tuple[tuple[bytes, int], ...]:
    items = _array(value, "items", most)
    for task_id, fence in items:
        _id(task_id, "task id")
        _whole(fence, "fence")
    return items


def _Cancel(fields: _Fields, spare: _Spare) -> m.Cancel:
    return m.Cancel(_attempts(fields[0]))


def _Notice(fields: _Fields, spare: _Spare) -> m.Notice:
    return m.Notice(_text(fields[0], "code", NAME_BYTES_MAX), _text(fields[1], "text"))


def _Query(fields: _Fields, spare: _Spare) -> m.Query:
    number, what, arguments = fields[:3]
    return m.Query(_whole(number, "number"), _name(what, "what"), _facts(arguments, "arguments"))


def _Answer(fields: _Fields, spare: _Spare) -> m.Answer:
    number, ok, body = fields[:3]
    return m.Answer(_whole(number, "number"), _flag(ok, "ok"), spare.payload(body))


def _Offer(fields: _Fields, spare: _Spare) -> m.Offer:
    slots, draining, queues, functions, held = fields[:5]
    for queue in _array(queues, "queues", QUEUES_MAX):
        _name(queue, "queue")
    offered = None
    if functions is not None:
        offered = [
            (_name(name, "function"), _options_or_none(options))
            for name, options in _array(functions, "functions", FUNCTIONS_MAX)
        ]
    return m.Offer(
        _whole(slots, "slots", SLOTS_MAX),
        _flag(draining, "draining"),
        queues,
        offered,
        None if held is None else _attempts(held, _ARRAY_MAX),
    )


def _Run(fields: _Fields, spare: _Spare) -> m.Run:
    checked = []
    for item in _array(fields[0], "items", BATCH_ITEMS_MAX):
        task_id, fence, function, payload, timeout_ms, deadline_ms = item
        if type(task_id) is not bytes or len(task_id) != ID_BYTES:
            _id(task_id, "task id")
        if type(fence) is not int or fence < 0:
            _whole(fence, "fence")
        if type(function) is not str or not is_name(function):
            _name(function, "function")
        if timeout_ms != 0 or deadline_ms != 0:
            _whole(timeout_ms, "timeout_ms", _MILLISECONDS_MAX)
            _whole(deadline_ms, "deadline_ms", _MILLISECONDS_MAX)
        if type(payload) is not bytes or len(payload) > INLINE_BYTES_MAX:
            item = (task_id, fence, function, spare.payload(payload), timeout_ms, deadline_ms)
        checked.append(item)
    return m.Run(checked)


def _Started(fields: _Fields, spare: _Spare) -> m.Started:
    return m.Started(_attempts(fields[0]))


def _Result(fields: _Fields, spare: _Spare) -> m.Result:
    checked = []
    for item in _array(fields[0], "items", BATCH_ITEMS_MAX):
        task_id, fence, outcome, payload, run_us, facts = item
        if type(task_id) is not bytes or len(task_id) != ID_BYTES:
            _id(task_id, "task id")
        if type(fence) is not int or fence < 0:
            _whole(fence, "fence")
        if type(outcome) is not int or not 0 <= outcome < len(m.OUTCOMES):
            raise ValueError(f"unknown outcome {_short(outcome)}")
        if type(run_us) is not int or not 0 <= run_us <= _U63:
            _whole(run_us, "run_us")
        if facts is not None:
            _facts(facts, "facts")
        if type(payload) is not bytes or len(payload) > INLINE_BYTES_MAX:
            item = (task_id, fence, outcome, spare.payload(payload), run_us, facts)
        checked.append(item)
    return m.Result(checked)


def _Recall(fields: _Fields, spare: _Spare) -> m.Recall:
    return m.Recall(_attempts(fields[0]))


def _Drain(fields: _Fields, spare: _Spare) -> m.Drain:
    return m.Drain(_text(fields[0], "reason"))


def _messages() -> Iterator[type[m.Message]]:
    yield from m.Message.__args__


_FIELD_NAMES: Final[dict[type[m.Message], tuple[str, ...]]] = {
    message: tuple(field.name for field in dataclass_fields(message)) for message in _messages()
}
_DECODERS: Final[dict[int, Callable[[_Fields, _Spare], m.Message]]] = {
    message.KIND: globals()[f"_{message.__name__}"] for message in _messages()
}
