"""Calls and results as payloads, and back. The broker never looks inside.

Rules of this file: plain data travel as msgpack, whose types survive the journey (tuple, set and
frozenset as extensions); everything else as pickle 5 with its large buffers beside the stream, and
only on trusted links. The first byte tells them apart. Whatever bytes come in, `decode_*` returns
what was sent or raises `PeerError`; an untrusted payload never unpickles anything.

    call    [arguments, keywords or nil]        and as third item the bytes of a function by value
    chunk   [items, 1]  each item is the one argument; [items, 2]  each item is an argument list
    result  [value]; of a chunk [values, nil or [[index, failure payload], ...]]
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, NamedTuple, TypeAlias

from evener.errors import NotSendable, PayloadTooLarge
from evener.pickling import PICKLE_FIRST_BYTE, blame, dump, load, refusal, type_label
from evener.plain import SKIM_BYTES_MIN, NotPlain, lift, pack, skim, unpack
from evener_wire.errors import EvenerError, PeerError
from evener_wire.limits import FRAME_BYTES_MAX, INLINE_BYTES_MAX, PAYLOAD_BYTES_MAX
from evener_wire.messages import Buffer, Frames, Payload

ONE_ARGUMENT: Final = 1
ARGUMENT_LISTS: Final = 2

Call: TypeAlias = tuple[Sequence[Any], Mapping[str, Any] | int | None, bytes | None]
"""Arguments; keywords, or the form of a chunk, or None; the bytes of a function by value."""


class ChunkResult(NamedTuple):
    """What a chunk gave: one value per item (None where it failed), and failures by index."""

    values: Sequence[Any]
    failures: Mapping[int, bytes]


# --- Either codec ---------------------------------------------------------------------------------


def _payload(stream: bytes, buffers: list[Buffer], what: Callable[[], str]) -> Payload:
    if not buffers and len(stream) <= INLINE_BYTES_MAX:
        return stream
    payload = Frames([stream, *buffers])
    if payload.nbytes > PAYLOAD_BYTES_MAX:
        raise PayloadTooLarge(what(), payload.nbytes, PAYLOAD_BYTES_MAX)
    largest = max(memoryview(buffer).nbytes for buffer in payload.buffers)
    if largest > FRAME_BYTES_MAX:
        raise PayloadTooLarge(f"a part of {what()}", largest, FRAME_BYTES_MAX)
    return payload


def _decode(payload: Payload, trusted: bool) -> Any:
    stream: Buffer = payload
    rest: Sequence[Buffer] = ()
    try:
        if type(payload) is Frames:
            stream, *rest = payload.buffers
        if memoryview(stream)[0] == PICKLE_FIRST_BYTE:
            if not trusted:
                raise PeerError("payload is a pickle, and this link is not trusted with pickles")
            return load(stream, rest)
        if not trusted and len(stream) > SKIM_BYTES_MIN:
            skim(stream)
        return unpack(stream, rest)
    except EvenerError:
        raise
    # msgpack, and the building of sets and keys, name their errors by a dozen types.
    except Exception as error:
        raise PeerError(f"payload is not msgpack: {type(error).__name__}: {error}"[:500]) from error


# --- Calls ----------------------------------------------------------------------------------------


def encode_call(
    function: str,
    args: Sequence[Any],
    kwargs: Mapping[str, Any] | None = None,
    *,
    trusted: bool = True,
    code: bytes | None = None,
    parameters: Sequence[str] = (),
) -> Payload:
    """The payload of a call. `function` and `parameters` (names in order) only serve messages.

    Raises `NotSendable` for an argument that cannot travel (or only as pickle, where that is not
    `trusted`), and `PayloadTooLarge`.
    """
    call: list[Any] = [[*args], kwargs or None]
    if code is not None:
        call.append(code)
    buffers: list[Buffer] = []
    for value in args:
        if type(value) is bytes and len(value) > INLINE_BYTES_MAX:
            buffers = lift(call[0])
            break
    try:
        packed = pack(call)
    except NotPlain:
        packed, buffers = _pickle_call(function, args, kwargs, code, trusted, parameters)
    if not buffers and len(packed) <= INLINE_BYTES_MAX:
        return packed
    return _payload(packed, buffers, lambda: f"the arguments of {function}")


def encode_chunk(
    function: str,
    items: Sequence[Any],
    form: int = ONE_ARGUMENT,
    *,
    trusted: bool = True,
    code: bytes | None = None,
) -> Payload:
    """The payload of many calls in one task; `form` says what an item is. Raises as a call does."""
    call: list[Any] = [[*items], form] if code is None else [[*items], form, code]
    buffers: list[Buffer] = []
    try:
        packed = pack(call)
    except NotPlain:
        packed, buffers = _pickle_call(function, items, form, code, trusted, ())
    return _payload(packed, buffers, lambda: f"a chunk of {function}")


def decode_call(payload: Payload, trusted: bool) -> Call:
    """What `encode_call` or `encode_chunk` was given. Raises `PeerError`, and nothing else."""
    call = _decode(payload, trusted)
    code = None
    try:
        if len(call) == 3:
            args, kwargs, code = call
        else:
            args, kwargs = call
    except (TypeError, ValueError) as error:
        raise PeerError("payload is not a call") from error
    form = kwargs.__class__
    if args.__class__ is not list or not (
        kwargs is None or form is dict or (form is int and 1 <= kwargs <= ARGUMENT_LISTS)
    ):
        raise PeerError("payload is not a call of arguments and keywords")
    if code is not None and (type(code) is not bytes or not trusted):
        raise PeerError("payload with a function by value, and this link is not trusted with any")
    return args, kwargs, code


def _pickle_call(
    function: str,
    args: Sequence[Any],
    kwargs: Mapping[str, Any] | int | None,
    code: bytes | None,
    trusted: bool,
    parameters: Sequence[str],
) -> tuple[bytes, list[Buffer]]:
    call = ([*args], kwargs or None) if code is None else ([*args], kwargs or None, code)
    named: list[tuple[str, object]] = []
    kind = "item" if isinstance(kwargs, int) else "argument"
    for index, value in enumerate(args):
        label = f'"{parameters[index]}"' if index < len(parameters) else str(index + 1)
        named.append((f"{kind} {label} of {function}", value))
    if isinstance(kwargs, Mapping):
        named += [(f'argument "{name}" of {function}', value) for name, value in kwargs.items()]
    if not trusted:
        raise _not_sendable(named, _needs_pickle)
    try:
        return dump(call)
    except Exception as error:
        raise _not_sendable(named, refusal) from error


# --- Results --------------------------------------------------------------------------------------


def encode_value(value: object, *, trusted: bool = True, function: str = "the task") -> Payload:
    """The payload of a result. Raises `NotSendable` and `PayloadTooLarge`."""
    result = [value]
    buffers: list[Buffer] = []
    if type(value) is bytes and len(value) > INLINE_BYTES_MAX:
        buffers = lift(result)
    try:
        packed = pack(result)
    except NotPlain:
        packed, buffers = _pickle_result(result, value, trusted, function)
    if not buffers and len(packed) <= INLINE_BYTES_MAX:
        return packed
    return _payload(packed, buffers, lambda: f"the result of {function}")


def decode_value(payload: Payload, trusted: bool) -> Any:
    """What `encode_value` was given. Raises `PeerError`, and nothing else."""
    result = _decode(payload, trusted)
    if result.__class__ is not list or len(result) != 1:
        raise PeerError("payload is not a result")
    return result[0]


def encode_chunk_result(
    values: list[Any],
    failures: Mapping[int, bytes],
    *,
    trusted: bool = True,
    function: str = "the task",
) -> Payload:
    """The payload of a chunk's results. Raises as `encode_value` does."""
    result = [values, [[index, failure] for index, failure in failures.items()] or None]
    buffers: list[Buffer] = []
    try:
        packed = pack(result)
    except NotPlain:
        packed, buffers = _pickle_result(result, values, trusted, function)
    return _payload(packed, buffers, lambda: f"the results of a chunk of {function}")


def decode_chunk_result(payload: Payload, trusted: bool, items: int) -> ChunkResult:
    """What `encode_chunk_result` was given, for this many items. Raises `PeerError`."""
    result = _decode(payload, trusted)
    if result.__class__ is not list or len(result) != 2 or result[0].__class__ is not list:
        raise PeerError("payload is not the result of a chunk")
    values: list[Any] = result[0]
    listed: Any = result[1] or []
    if len(values) != items or listed.__class__ is not list:
        raise PeerError(f"payload has results for {len(values)} of {items} items")
    failures: dict[int, bytes] = {}
    for pair in listed:
        if pair.__class__ is not list or len(pair) != 2:
            raise PeerError("payload with a failure that is not one")
        index, failure = pair
        if type(index) is not int or not 0 <= index < items or type(failure) is not bytes:
            raise PeerError("payload with a failure of no item")
        failures[index] = failure
    return ChunkResult(values, failures)


def decode_outcome(payload: Payload, trusted: bool) -> Any:
    """The value of a result, or the `ChunkResult` of a chunk. Raises `PeerError`."""
    result = _decode(payload, trusted)
    if result.__class__ is list and len(result) == 1:
        return result[0]
    if result.__class__ is not list or len(result) != 2 or result[0].__class__ is not list:
        raise PeerError("payload is no result, neither of a call nor of a chunk")
    return decode_chunk_result(payload, trusted, len(result[0]))


def _pickle_result(
    result: list[Any], value: object, trusted: bool, function: str
) -> tuple[bytes, list[Buffer]]:
    if not trusted:
        raise _not_sendable([(f"the result of {function}", value)], _needs_pickle)
    try:
        return dump(result)
    except Exception as error:
        raise _not_sendable([(f"the result of {function}", value)], refusal) from error


# --- Messages -------------------------------------------------------------------------------------


def _not_sendable(
    named: list[tuple[str, object]], refusal: Callable[[object], str | None]
) -> NotSendable:
    """The error that names the first of these values, and the part of it, that is refused."""
    for label, value in named:
        if refusal(value) is not None:
            path, part, reason = blame(value, refusal)
            return NotSendable(label + (f" (at {path})" if path else ""), type_label(part), reason)
    return NotSendable(", ".join(label for label, _ in named), "together", "are not picklable")


def _needs_pickle(value: object) -> str | None:
    try:
        pack([value])
    except NotPlain:
        large = "of more than 64 bits " if type(value) is int else ""
        return (
            f"{large}needs pickle, which evener uses only between processes of one machine, "
            "because whoever can send a pickle can run any code. Send plain data (None, bool, int, "
            "float, str, bytes, list, tuple, dict, set); or, if you trust everybody who reaches "
            "your broker, say Client(insecure=True), and --insecure for broker and workers"
        )
    return None
