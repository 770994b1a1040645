"""Messages to frames and back. `decode` is total: any bytes give a message or one `PeerError`.

Rules of this file: no I/O, no clock, no state. Whatever leaves `decode` has the types and bounds
that `messages.py` states, so nobody behind it checks again. Frame 0 is the head, a msgpack array
`[kind, session, number, *fields]`; the other frames are large payloads in the order in which the
head names them. In place of a payload the head holds its bytes, or how many frames it takes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import fields as dataclass_fields
from typing import Any, Final, NamedTuple, NoReturn, TypeAlias, get_args

import msgpack

from evener_wire import checks
from evener_wire import messages as m
from evener_wire.checks import MILLISECONDS_MAX, WHOLE_MAX, known_names
from evener_wire.errors import PeerError
from evener_wire.limits import (
    BATCH_ITEMS_MAX,
    BUFFERS_MAX,
    FACTS_MAX,
    FRAMES_MAX,
    FUNCTIONS_MAX,
    HEAD_BYTES_MAX,
    HELD_MAX,
    ID_BYTES,
    INLINE_BYTES_MAX,
    NAME_BYTES_MAX,
    PAYLOAD_BYTES_MAX,
    QUEUES_MAX,
    SLOTS_MAX,
)

# No array of any message is longer; longer ones are refused before they are built.
_ARRAY_MAX: Final = max(BATCH_ITEMS_MAX, FUNCTIONS_MAX, SLOTS_MAX, HELD_MAX)

_OUTCOMES: Final = len(m.OUTCOMES)
_TERMINAL_STATES: Final = len(m.TERMINAL_STATES)

# Heads up to this size may be built at once: however deep and long the arrays that they declare, it
# is less than a megabyte. Larger ones are first shown to hold what they declare. About 2 us each.
_UNPROVEN_BYTES_MAX: Final = 512


_Fields: TypeAlias = tuple[Any, ...]


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
    if fields.__class__ is not tuple or len(fields) < 3:
        raise PeerError("head is not an array of kind, session, number and fields")
    kind, session, number = fields[:3]
    decoder = _DECODERS.get(kind) if type(kind) is int else None
    if decoder is None:
        raise PeerError(f"unknown message kind {checks.short(kind)}")
    spare = _Spare(frames)
    try:
        checks.whole(session, "session")
        checks.whole(number, "number")
        message = decoder(fields[3:], spare)
    except (ValueError, TypeError, IndexError) as error:
        raise PeerError(f"malformed {decoder.__name__[1:].upper()}: {error}") from error
    if spare.taken != len(frames):
        raise PeerError(f"{len(frames) - spare.taken} frames more than the head names")
    return Envelope(session, number, message)


def _unpack(head: m.Buffer) -> Any:
    view = memoryview(head)
    size = view.nbytes
    if size > HEAD_BYTES_MAX:
        raise PeerError(f"head of {size} bytes (at most {HEAD_BYTES_MAX})")
    try:
        if size > _UNPROVEN_BYTES_MAX:
            _prove_complete(view)
        # msgpack ships no types
        fields: Any = msgpack.unpackb(  # pyright: ignore[reportUnknownVariableType]
            view,
            use_list=False,
            strict_map_key=True,
            object_pairs_hook=_map,
            ext_hook=_refuse_ext,
            max_ext_len=0,
            max_array_len=_ARRAY_MAX if size > _UNPROVEN_BYTES_MAX else size,
            max_map_len=FACTS_MAX,
        )
    # msgpack names its errors by a dozen types (also RecursionError, UnicodeDecodeError and
    # OverflowError): whichever it is, the bytes are not a head.
    except Exception as error:
        raise PeerError(f"head is not msgpack: {type(error).__name__}") from error
    return fields  # pyright: ignore[reportUnknownVariableType]


def _prove_complete(view: memoryview) -> None:
    """Walk over a head without building anything; raises where it declares more than it holds.

    msgpack takes memory for an array as soon as it reads its length: a thousand nested lengths,
    3 KB, would cost 80 MB. Once all elements are known to be there, memory is linear in the bytes.
    """
    walker: Any = msgpack.Unpacker(  # pyright: ignore[reportUnknownVariableType]
        max_buffer_size=HEAD_BYTES_MAX, read_size=view.nbytes
    )
    walker.feed(view)
    walker.skip()


def _map(pairs: list[tuple[Any, Any]]) -> dict[Any, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a key stands twice")
    return found


def _refuse_ext(code: int, data: bytes) -> NoReturn:
    raise ValueError(f"msgpack extension {code} is not allowed")


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
        if value > BUFFERS_MAX:
            raise ValueError(f"payload of {value} frames (at most {BUFFERS_MAX})")
        payload = m.Frames(self.frames[self.taken : self.taken + value])
        self.taken += value
        if payload.nbytes > PAYLOAD_BYTES_MAX:
            raise ValueError(f"payload of {payload.nbytes} bytes")
        return payload


# --- One decoder per message ----------------------------------------------------------------------


def _hello(fields: _Fields, spare: _Spare) -> m.Hello:
    low, high, role, instance, name, epoch, broker, facts = fields[:8]
    if role not in ("client", "agent"):
        raise ValueError(f"unknown role {checks.short(role)}")
    return m.Hello(
        checks.whole(low, "protocol_min", checks.whole(high, "protocol_max", 65_535)),
        high,
        role,
        checks.identity(instance, "instance"),
        checks.name(name, "name"),
        checks.whole(epoch, "epoch", m.EPOCH_MAX),
        checks.identity(broker, "broker"),
        checks.facts(facts, "facts"),
    )


def _welcome(fields: _Fields, spare: _Spare) -> m.Welcome:
    protocol, epoch, broker, beat, silence, tasks_max, bytes_max, durable, facts = fields[:9]
    return m.Welcome(
        checks.whole(protocol, "protocol", 65_535),
        checks.whole(epoch, "epoch", m.EPOCH_MAX),
        checks.identity(broker, "broker"),
        checks.whole(beat, "heartbeat_ms", MILLISECONDS_MAX),
        checks.whole(silence, "silence_ms", MILLISECONDS_MAX),
        checks.whole(tasks_max, "tasks_max"),
        checks.whole(bytes_max, "bytes_max"),
        checks.flag(durable, "durable"),
        checks.facts(facts, "facts"),
    )


def _resync(fields: _Fields, spare: _Spare) -> m.Resync:
    return m.Resync(checks.text(fields[0], "reason"))


def _refused(fields: _Fields, spare: _Spare) -> m.Refused:
    return m.Refused(checks.text(fields[0], "code", NAME_BYTES_MAX), checks.text(fields[1], "text"))


def _heartbeat(fields: _Fields, spare: _Spare) -> m.Heartbeat:
    running, workers = fields[:2]
    for attempt in checks.array(running, "running", SLOTS_MAX):
        task_id, fence, age_ms = checks.item(attempt, "running attempt")
        checks.identity(task_id, "task id")
        checks.whole(fence, "fence")
        checks.whole(age_ms, "age_ms")
    for worker in checks.array(workers, "workers", SLOTS_MAX):
        checks.facts(worker, "worker")
    return m.Heartbeat(running, workers)


def _goodbye(fields: _Fields, spare: _Spare) -> m.Goodbye:
    return m.Goodbye(checks.text(fields[0], "reason"))


def _ack(fields: _Fields, spare: _Spare) -> m.Ack:
    return m.Ack(checks.whole(fields[0], "upto"))


def _submit(fields: _Fields, spare: _Spare) -> m.Submit:
    # The hot path of every task: checks stand in line, and an item is only built anew if it has to.
    # An item that is a map or a text fails at its id or its options, as map keys are never numbers.
    items, again = fields[:2]
    checked: list[Any] = []
    for item in checks.array(items, "items", BATCH_ITEMS_MAX):
        task_id, function, payload, options = item
        if type(task_id) is not bytes or len(task_id) != ID_BYTES:
            checks.identity(task_id, "task id")
        if function not in known_names:
            checks.name(function, "function")
        if type(payload) is not bytes or len(payload) > INLINE_BYTES_MAX:
            item = (task_id, function, spare.payload(payload), checks.options(options))
        elif options is not None:
            item = (task_id, function, payload, checks.options(options))
        checked.append(item)
    return m.Submit(checked, checks.flag(again, "again"))


def _accepted(fields: _Fields, spare: _Spare) -> m.Accepted:
    return m.Accepted(checks.whole(fields[0], "upto"))


def _rejected(fields: _Fields, spare: _Spare) -> m.Rejected:
    for rejected in checks.array(fields[0], "items", BATCH_ITEMS_MAX):
        task_id, code, text = checks.item(rejected, "item")
        checks.identity(task_id, "task id")
        checks.text(code, "code", NAME_BYTES_MAX)
        checks.text(text, "text")
    return m.Rejected(fields[0])


def _terminal(fields: _Fields, spare: _Spare) -> m.Terminal:
    checked: list[Any] = []
    for item in checks.array(fields[0], "items", BATCH_ITEMS_MAX):
        task_id, state, payload, facts = item
        if type(task_id) is not bytes or len(task_id) != ID_BYTES:
            checks.identity(task_id, "task id")
        if type(state) is not int or not 0 <= state < _TERMINAL_STATES:
            raise ValueError(f"unknown terminal state {checks.short(state)}")
        if facts is not None:
            checks.facts(facts, "facts")
        if type(payload) is not bytes or len(payload) > INLINE_BYTES_MAX:
            item = (task_id, state, spare.payload(payload), facts)
        checked.append(item)
    return m.Terminal(checked)


def _cancel(fields: _Fields, spare: _Spare) -> m.Cancel:
    return m.Cancel(checks.attempts(fields[0], BATCH_ITEMS_MAX))


def _notice(fields: _Fields, spare: _Spare) -> m.Notice:
    return m.Notice(checks.text(fields[0], "code", NAME_BYTES_MAX), checks.text(fields[1], "text"))


def _query(fields: _Fields, spare: _Spare) -> m.Query:
    number, what, arguments = fields[:3]
    checks.whole(number, "number")
    return m.Query(number, checks.name(what, "what"), checks.facts(arguments, "arguments"))


def _answer(fields: _Fields, spare: _Spare) -> m.Answer:
    number, ok, body = fields[:3]
    return m.Answer(checks.whole(number, "number"), checks.flag(ok, "ok"), spare.payload(body))


def _offer(fields: _Fields, spare: _Spare) -> m.Offer:
    slots, draining, queues, functions, held = fields[:5]
    for queue in checks.array(queues, "queues", QUEUES_MAX):
        checks.name(queue, "queue")
    offered = None
    if functions is not None:
        offered = [
            _offered(checks.item(function, "function"))
            for function in checks.array(functions, "functions", FUNCTIONS_MAX)
        ]
    return m.Offer(
        checks.whole(slots, "slots", SLOTS_MAX),
        checks.flag(draining, "draining"),
        queues,
        offered,
        None if held is None else checks.attempts(held, HELD_MAX),
    )


def _offered(item: tuple[Any, ...]) -> tuple[str, m.Options | None]:
    name, options = item
    return checks.name(name, "function"), checks.options(options)


def _run(fields: _Fields, spare: _Spare) -> m.Run:
    checked: list[Any] = []
    for item in checks.array(fields[0], "items", BATCH_ITEMS_MAX):
        task_id, fence, function, payload, timeout_ms, deadline_ms = item
        if type(task_id) is not bytes or len(task_id) != ID_BYTES:
            checks.identity(task_id, "task id")
        if type(fence) is not int or not 0 <= fence <= WHOLE_MAX:
            checks.whole(fence, "fence")
        if function not in known_names:
            checks.name(function, "function")
        if type(timeout_ms) is not int or type(deadline_ms) is not int or timeout_ms or deadline_ms:
            checks.whole(timeout_ms, "timeout_ms", MILLISECONDS_MAX)
            checks.whole(deadline_ms, "deadline_ms", MILLISECONDS_MAX)
        if type(payload) is not bytes or len(payload) > INLINE_BYTES_MAX:
            item = (task_id, fence, function, spare.payload(payload), timeout_ms, deadline_ms)
        checked.append(item)
    return m.Run(checked)


def _started(fields: _Fields, spare: _Spare) -> m.Started:
    return m.Started(checks.attempts(fields[0], BATCH_ITEMS_MAX))


def _result(fields: _Fields, spare: _Spare) -> m.Result:
    checked: list[Any] = []
    for item in checks.array(fields[0], "items", BATCH_ITEMS_MAX):
        task_id, fence, outcome, payload, run_us, facts = item
        if type(task_id) is not bytes or len(task_id) != ID_BYTES:
            checks.identity(task_id, "task id")
        if type(fence) is not int or not 0 <= fence <= WHOLE_MAX:
            checks.whole(fence, "fence")
        if type(outcome) is not int or not 0 <= outcome < _OUTCOMES:
            raise ValueError(f"unknown outcome {checks.short(outcome)}")
        if type(run_us) is not int or not 0 <= run_us <= WHOLE_MAX:
            checks.whole(run_us, "run_us")
        if facts is not None:
            checks.facts(facts, "facts")
        if type(payload) is not bytes or len(payload) > INLINE_BYTES_MAX:
            item = (task_id, fence, outcome, spare.payload(payload), run_us, facts)
        checked.append(item)
    return m.Result(checked)


def _recall(fields: _Fields, spare: _Spare) -> m.Recall:
    return m.Recall(checks.attempts(fields[0], BATCH_ITEMS_MAX))


def _drain(fields: _Fields, spare: _Spare) -> m.Drain:
    return m.Drain(checks.text(fields[0], "reason"))


_DECODERS: Final[dict[int, Callable[[_Fields, _Spare], m.Message]]] = {
    m.Hello.KIND: _hello,
    m.Welcome.KIND: _welcome,
    m.Resync.KIND: _resync,
    m.Refused.KIND: _refused,
    m.Heartbeat.KIND: _heartbeat,
    m.Goodbye.KIND: _goodbye,
    m.Ack.KIND: _ack,
    m.Submit.KIND: _submit,
    m.Accepted.KIND: _accepted,
    m.Rejected.KIND: _rejected,
    m.Terminal.KIND: _terminal,
    m.Cancel.KIND: _cancel,
    m.Notice.KIND: _notice,
    m.Query.KIND: _query,
    m.Answer.KIND: _answer,
    m.Offer.KIND: _offer,
    m.Run.KIND: _run,
    m.Started.KIND: _started,
    m.Result.KIND: _result,
    m.Recall.KIND: _recall,
    m.Drain.KIND: _drain,
}

_FIELD_NAMES: Final[dict[type[m.Message], tuple[str, ...]]] = {
    message: tuple(field.name for field in dataclass_fields(message))
    for message in get_args(m.Message)
}
