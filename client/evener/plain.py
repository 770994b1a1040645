"""Plain data as msgpack, so that every type arrives as what it was.

Rules of this file: msgpack has no tuple, set and frozenset, so these are extensions; what it would
change on the way (subclasses, bytearray) it refuses with `NotPlain`. What comes in may be hostile:
depth is bounded, and no memory is taken for lengths that are only declared.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Sequence
from itertools import chain
from typing import Any, Final, cast

from msgpack import ExtType, Packer, Unpacker, unpackb

from evener_wire.errors import PeerError
from evener_wire.limits import INLINE_BYTES_MAX, MIB
from evener_wire.messages import Buffer

_EXTENSIONS: Final[dict[type, int]] = {tuple: 1, set: 2, frozenset: 3}
_BUILDERS: Final[dict[int, Callable[[Iterable[Any]], Any]]] = {1: tuple, 2: set, 3: frozenset}

# Large `bytes` of one argument list that travel as frames of their own; the rest is copied.
_LIFTED_MAX: Final = 64
_FRAME: Final = 4  # stands for the next frame, a `bytes` too large to be copied into the stream

# Extensions inside extensions. Each level is a parser of its own with 40 KiB of C stack, so deeper
# ones go as pickle.
_DEPTH_MAX: Final = 24

# A packer keeps the memory of its largest payload; above this it is thrown away after use.
_PACKER_KEEPS_BYTES_MAX: Final = MIB

# msgpack takes memory for as many items as an array says it has. Above this size an untrusted
# payload, and any extension, is first skimmed without building, so that what it says is true.
SKIM_BYTES_MIN: Final = 1_024


class NotPlain(Exception):
    """Raised inside of the packer for what only pickle can carry."""


def _packer(depth: int = _DEPTH_MAX) -> Packer:
    inner: list[Packer] = []

    def extend(value: object) -> ExtType:
        code = _EXTENSIONS.get(type(value))
        if code is None or depth == 0:
            raise NotPlain
        if not inner:
            inner.append(_packer(depth - 1))
        items: Any = value
        return ExtType(code, inner[0].pack([*items]))

    return Packer(default=extend, strict_types=True, buf_size=4_096)


class _Packers(threading.local):
    """One packer per thread: making one costs as much as packing a small call."""

    pack: Callable[[object], bytes]

    def __init__(self) -> None:
        self.pack = _packer().pack


_packers: Final = _Packers()


def pack(value: list[Any]) -> bytes:
    """The bytes of plain data. Raises `NotPlain` for what would not arrive as what it is."""
    try:
        packed = _packers.pack(value)
    # Too deep, an integer of more than 64 bits, a text with lone surrogates: pickle can do them.
    except (ValueError, OverflowError, RecursionError) as error:
        raise NotPlain from error
    # msgpack has one type for bytes, bytearray and memoryview. Only where its marks occur can one
    # of them be inside.
    if (0xC4 in packed or 0xC5 in packed or 0xC6 in packed) and _has_other_bytes(value):
        raise NotPlain
    if len(packed) > _PACKER_KEEPS_BYTES_MAX:
        _packers.pack = _packer().pack
    return packed


_OTHER_BYTES: Final = frozenset((bytearray, memoryview))
_CONTAINERS: Final[frozenset[Any]] = frozenset((list, dict, tuple, set, frozenset))


def _has_other_bytes(value: list[Any]) -> bool:
    stack: list[Any] = [value]
    while stack:
        container = stack.pop()
        if container.__class__ is dict:
            container = [*chain(container, container.values())]
        types = set(map(type, cast("Iterable[object]", container)))
        if not types.isdisjoint(_OTHER_BYTES):
            return True
        if not types.isdisjoint(_CONTAINERS):
            stack.extend(part for part in container if part.__class__ in _CONTAINERS)
    return False


def _extension_hook(depth: int) -> Callable[[int, bytes], Any]:
    inner = _extension_hook(depth - 1) if depth else None

    def build(code: int, data: bytes) -> Any:
        builder = _BUILDERS.get(code)
        if builder is None or inner is None:
            raise PeerError(f"payload with extension {code}, or nested too deep")
        if len(data) > SKIM_BYTES_MIN:
            skim(data)
        return builder(unpackb(data, ext_hook=inner, strict_map_key=False))

    return build


_build_extension: Final = _extension_hook(_DEPTH_MAX + 1)


def unpack(stream: Buffer, rest: Sequence[Buffer] = ()) -> Any:
    """The data in these bytes, `rest` being the frames that `lift` made. Raises anything."""
    if not rest:
        return unpackb(stream, ext_hook=_build_extension, strict_map_key=False)
    frames = iter(rest)

    def build(code: int, data: bytes) -> Any:
        return bytes(next(frames)) if code == _FRAME else _build_extension(code, data)

    value = unpackb(stream, ext_hook=build, strict_map_key=False)
    if next(frames, None) is not None:
        raise PeerError("payload with more frames than it names")
    return value


def skim(stream: Buffer) -> None:
    """Reads without building anything. Raises where a declared length is not there."""
    nbytes = memoryview(stream).nbytes
    unpacker = Unpacker(max_buffer_size=nbytes)
    unpacker.feed(stream)
    unpacker.skip()


def lift(values: list[Any]) -> list[Buffer]:
    """Takes large `bytes` out of a list, to travel as frames that nobody copies."""
    buffers: list[Buffer] = []
    for index, value in enumerate(values):
        if type(value) is bytes and len(value) > INLINE_BYTES_MAX and len(buffers) < _LIFTED_MAX:
            buffers.append(value)
            values[index] = ExtType(_FRAME, b"")
    return buffers
