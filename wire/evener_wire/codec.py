"""Messages to frames and back. `decode` is total: any bytes give a message or one `PeerError`.

Rules of this file: no I/O, no clock, no state. Whatever leaves `decode` has the types and bounds
that `messages.py` states, so nobody behind it checks again. Frame 0 is the head, a msgpack array
`[kind, session, number, *fields]`; the other frames are large payloads in the order in which the
head names them. In place of a payload the head holds its bytes, or how many frames it takes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import fields as dataclass_fields
from operator import attrgetter
from typing import Any, Final, NamedTuple, NoReturn, get_args

import msgpack

from evener_wire import checks
from evener_wire import messages as m
from evener_wire.decoders import DECODERS, Spare
from evener_wire.errors import PeerError
from evener_wire.limits import (
    BATCH_ITEMS_MAX,
    FACTS_MAX,
    FRAMES_MAX,
    FUNCTIONS_MAX,
    HEAD_BYTES_MAX,
    HELD_MAX,
    SLOTS_MAX,
)

# No array of any message is longer; longer ones are refused before they are built.
_ARRAY_MAX: Final = max(BATCH_ITEMS_MAX, FUNCTIONS_MAX, SLOTS_MAX, HELD_MAX)

# Heads up to this size may be built at once: however deep and long the arrays that they declare, it
# is less than a megabyte. Larger ones are first shown to hold what they declare. About 2 us each.
_UNPROVEN_BYTES_MAX: Final = 512


class Envelope(NamedTuple):
    """A message with its place in a session: `session` 0 and `number` 0 before there is one."""

    session: int
    number: int
    message: m.Message


# --- Encoding -------------------------------------------------------------------------------------


def encode(message: m.Message, session: int = 0, number: int = 0) -> list[m.Buffer]:
    """The frames of a message, head first. Large payloads are not copied."""
    fields = _FIELDS_OF[type(message)](message)
    if type(message) in _WITHOUT_PAYLOADS:
        return [msgpack.packb((message.KIND, session, number, *fields))]
    frames: list[m.Buffer] = [b""]

    def take_frames(value: object) -> int:
        if type(value) is m.Frames:
            frames.extend(value.buffers)
            return len(value.buffers)
        raise TypeError(f"cannot encode {type(value).__name__} in {type(message).__name__}")

    frames[0] = msgpack.packb((message.KIND, session, number, *fields), default=take_frames)
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
    decoder = DECODERS.get(kind) if type(kind) is int else None
    if decoder is None:
        raise PeerError(f"unknown message kind {checks.short(kind)}")
    spare = Spare(frames)
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


def _fields_getter(message: type[m.Message]) -> Callable[[m.Message], tuple[Any, ...]]:
    """What takes the fields out of a message, in their order."""
    names = [field.name for field in dataclass_fields(message)]
    if len(names) > 1:
        return attrgetter(*names)
    (name,) = names
    return lambda one: (getattr(one, name),)


_FIELDS_OF: Final = {message: _fields_getter(message) for message in get_args(m.Message)}

# What idle peers say, each second: its fields hold no payloads.
_WITHOUT_PAYLOADS: Final = frozenset({m.Heartbeat})
