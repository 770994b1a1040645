"""Tasks as rows, and rows as tasks. A row that comes back is checked as if a stranger had sent it.

What belongs to a task is packed into one column, what was tried into another, its end into a third:
each begins with the task's number and ends with a checksum, so that neither a flipped bit nor parts
that changed places go unseen. Payloads of several buffers are stored joined, with the length of
each. Rules of this file: no I/O.
"""

from __future__ import annotations

import struct
import zlib
from functools import lru_cache
from typing import Any, Final

import msgpack

from evener_broker.journaling import KeptTask, TaskEnded, TaskSaved, TaskTried
from evener_wire import checks
from evener_wire import messages as m
from evener_wire.limits import (
    BUFFERS_MAX,
    FACTS_MAX,
    ID_BYTES,
    MIB,
    PAYLOAD_BYTES_MAX,
    TEXT_CHARS_MAX,
)

_OPTIONS_CACHED: Final = 1_024

# Packed facts: at most so many entries of one text each, whose characters may take four bytes.
_FACTS_BYTES_MAX: Final = FACTS_MAX * 4 * TEXT_CHARS_MAX

# Larger payloads stand in rows of their own, in parts of this size: a row ends at a gigabyte.
PART_BYTES: Final = 64 * MIB
PARTS_BITS: Final = 15
CALL_PARTS: Final = 0
RESULT_PARTS: Final = 1

_LENGTH_BYTES: Final = 4
_WORD: Final = 0xFFFF_FFFF

# Number, digest, checksum of the call, and how long the name and the options are; behind this stand
# the ids of task and client, and those two. Options of no length are the defaults.
_TASK: Final = struct.Struct("<qqIHH")
# Number, starts, failures, returns, dispatched, settled.
_TRIES: Final = struct.Struct("<qIIIBq")
# Number, checksum of the result, state, and what follows: the order, facts. Format 1 had no order.
_ENDING: Final = struct.Struct("<qIBB")
_ORDERED: Final = struct.Struct("<qIBBq")
_HAS_FACTS: Final = 1
_HAS_ORDER: Final = 2
_ORDER: Final = struct.Struct("<q")
# Each of these ends with a checksum of its own.
_SUM: Final = struct.Struct("<I")

# In the checksum of a payload with lengths: no buffer at all is not the same as no bytes.
_FRAMES: Final = b"frames"

_pack_task = _TASK.pack
_pack_sum = _SUM.pack
_crc32 = zlib.crc32

# Few columns, since each costs time in every statement.
COLUMNS: Final = "number, task, tries, ending, result_lengths, result, call_lengths, call"
RESULT: Final = 5
CALL: Final = 7


# --- To rows --------------------------------------------------------------------------------------


class Packing:
    """Makes rows. Options are packed once for each object, as many tasks share few of them.

    Parts of large payloads gather in `parts`, as pairs of key and data; the row has none then.
    """

    def __init__(self) -> None:
        self.parts: list[tuple[int, m.Buffer]] = []
        self._packed: dict[int, tuple[m.Options, bytes]] = {}

    def saved(self, task: TaskSaved) -> tuple[Any, ...]:
        """number, task, call_lengths, call"""
        number, task_id, client, function, options, call, digest = task
        packed = self._options(options)
        name = function.encode()
        lengths: bytes | None = None
        data: m.Buffer = call
        if type(call) is bytes:
            call_sum = _crc32(call, number & _WORD)
        else:
            first = parts_of(number, CALL_PARTS)[0]
            lengths, call_sum, data = self._frames(call, first, number & _WORD)
        head = _pack_task(number, digest, call_sum, len(name), len(packed))
        body = b"".join((head, task_id, client, name, packed))
        return number, body + _pack_sum(_crc32(body)), lengths, data

    def ended(self, task: TaskEnded) -> tuple[Any, ...]:
        """ending, result_lengths, result, number"""
        number, state, result, facts, _, order = task
        lengths: bytes | None = None
        data: m.Buffer = result
        if type(result) is bytes:
            result_sum = _crc32(result, number & _WORD)
        else:
            first = parts_of(number, RESULT_PARTS)[0]
            lengths, result_sum, data = self._frames(result, first, number & _WORD)
        follows = _HAS_ORDER if facts is None else _HAS_ORDER | _HAS_FACTS
        body = _ORDERED.pack(number, result_sum, state, follows, order)
        if facts is not None:
            body += _pack_facts(facts)
        return body + _pack_sum(_crc32(body)), lengths, data, number

    def _frames(self, payload: m.Payload, first: int, before: int) -> tuple[bytes, int, m.Buffer]:
        """Lengths, checksum, and what the row gets."""
        assert type(payload) is m.Frames
        views = [memoryview(buffer).cast("B") for buffer in payload.buffers]
        lengths = struct.pack(f"<{len(views)}I", *[view.nbytes for view in views])
        total = _crc32(lengths, _crc32(_FRAMES, before))
        for view in views:
            total = _crc32(view, total)
        if payload.nbytes <= PART_BYTES:
            return lengths, total, views[0] if len(views) == 1 else b"".join(views)
        key = first
        for view in views:
            for start in range(0, view.nbytes, PART_BYTES):
                self.parts.append((key, view[start : start + PART_BYTES]))
                key += 1
        return lengths, total, b""

    def _options(self, options: m.Options) -> bytes:
        known = self._packed.get(id(options))
        if known is not None:
            return known[1]
        packed = b"" if options == m.DEFAULT_OPTIONS else bytes(msgpack.packb(options))
        if len(self._packed) >= _OPTIONS_CACHED:
            self._packed.clear()
        # The object is held, so that no other one gets its identity.
        self._packed[id(options)] = options, packed
        return packed


def parts_of(number: int, kind: int) -> tuple[int, int]:
    """The first and the last key that parts of a task's call, or of its result, may have."""
    first = (number << 1 | kind) << PARTS_BITS
    return first, first + (1 << PARTS_BITS) - 1


def tried(task: TaskTried) -> tuple[Any, ...]:
    """tries, number"""
    body = _TRIES.pack(*task)
    return body + _pack_sum(_crc32(body)), task.number


def _pack_facts(facts: m.Facts) -> bytes:
    try:
        packed: bytes = msgpack.packb(facts)
        _read_facts(packed)
    except (ValueError, TypeError, OverflowError) as error:
        # A journal that cannot be read back would be worse than an end without its certificate.
        packed = msgpack.packb({"facts": f"not kept: {error}"[:TEXT_CHARS_MAX]})
    return packed


def peer_sum(instance: bytes, name: str) -> int:
    """The checksum of a client or an agent."""
    return _crc32(name.encode(), _crc32(instance))


def taken_sum(instance: bytes, upto: int) -> int:
    """The checksum of what a client has taken."""
    return _crc32(_ORDER.pack(upto), _crc32(instance))


def meta_sum(epoch: int, txn: int, accepted: int, writes: int) -> int:
    """The checksum of the row that every transaction writes."""
    return _crc32(struct.pack("<qqqq", epoch, txn, accepted, writes))


# --- From rows ------------------------------------------------------------------------------------


def kept(row: tuple[Any, ...]) -> KeptTask:
    """The task of a row with `COLUMNS`. Raises ValueError or TypeError."""
    number, task, tries, ending, result_lengths, result, call_lengths, call = row
    checks.whole(number, "number")
    (digest, call_sum, name_bytes, options_bytes), rest = _opened(task, _TASK, number, "task")
    name_at = 2 * ID_BYTES
    options_at = name_at + name_bytes
    if len(rest) != options_at + options_bytes:
        raise ValueError("the lengths in the task do not fit")
    function = _read_name(rest[name_at:options_at])
    packed = rest[options_at:]
    options = _read_options(packed) if packed else m.DEFAULT_OPTIONS
    checks.whole(digest, "digest")
    known = _payload(call, call_lengths, call_sum, number, "call")
    starts = failures = returns = dispatched = settled = 0
    if tries is not None:
        counts, rest_of_tries = _opened(tries, _TRIES, number, "tries")
        starts, failures, returns, dispatched, settled = counts
        checks.whole(settled, "settled")
        if rest_of_tries or dispatched > 1:
            raise ValueError("the tries are longer than they may be")
    fields = number, rest[:ID_BYTES], rest[ID_BYTES:name_at], function, options, known, digest
    tried_so_far = starts, failures, returns, bool(dispatched)
    if ending is None:
        if known is None or result is not None or result_lengths is not None:
            raise ValueError("an open task without a call, or with a result")
        return KeptTask(*fields, *tried_so_far, None, b"", None, settled)
    (result_sum, state, follows), facts = _opened(ending, _ENDING, number, "ending")
    checks.whole(state, "state", len(m.TERMINAL_STATES) - 1)
    order = 0
    if follows & _HAS_ORDER:
        if len(facts) < _ORDER.size:
            raise ValueError("an ended task without its order")
        order = checks.whole(_ORDER.unpack_from(facts)[0], "order")
        facts = facts[_ORDER.size :]
    value = _payload(result, result_lengths, result_sum, number, "result")
    if value is None or follows & ~_HAS_ORDER != bool(facts):
        raise ValueError("an ended task without a result, or without its facts")
    told = _read_facts(facts) if facts else None
    return KeptTask(*fields, *tried_so_far, state, value, told, settled, order)


def _opened(
    data: object, head: struct.Struct, number: int, what: str
) -> tuple[tuple[int, ...], bytes]:
    """The numbers behind the task's own, and what follows them."""
    if type(data) is not bytes or len(data) < head.size + _SUM.size:
        raise ValueError(f"the {what} is not bytes, or too short")
    body = data[: -_SUM.size]
    first, *numbers = head.unpack_from(body)
    if _pack_sum(_crc32(body)) != data[-_SUM.size :]:
        raise ValueError(f"the {what} and its checksum differ")
    if first != number:
        raise ValueError(f"the {what} is that of number {first}")
    return tuple(numbers), body[head.size :]


def _payload(
    data: object, lengths: object, stored: int, number: int, what: str
) -> m.Payload | None:
    if data is None:
        if lengths is not None:
            raise ValueError(f"lengths without a {what}")
        return None
    if type(data) is not bytes or len(data) > PAYLOAD_BYTES_MAX:
        raise ValueError(f"the {what} is not bytes")
    packed = b"" if lengths is None else lengths
    if type(packed) is not bytes:
        raise ValueError(f"the lengths of the {what} are not bytes")
    start = number & _WORD if lengths is None else _crc32(_FRAMES, number & _WORD)
    if stored != _crc32(data, _crc32(packed, start)):
        raise ValueError(f"the {what} and its checksum differ")
    if lengths is None:
        return data
    count, rest = divmod(len(packed), _LENGTH_BYTES)
    sizes = struct.unpack(f"<{count}I", packed) if rest == 0 and count <= BUFFERS_MAX else ()
    if rest or count > BUFFERS_MAX or sum(sizes) != len(data):
        raise ValueError(f"the lengths of the {what} do not fit")
    if count == 1:
        return m.Frames((data,))
    view, place = memoryview(data), 0
    buffers: list[m.Buffer] = []
    for size in sizes:
        buffers.append(view[place : place + size])
        place += size
    return m.Frames(buffers)


@lru_cache(maxsize=_OPTIONS_CACHED)
def _read_name(packed: bytes) -> str:
    return checks.name(packed.decode(), "function")


@lru_cache(maxsize=_OPTIONS_CACHED)
def _read_options(packed: bytes) -> m.Options:
    options = checks.options(_unpack(packed))
    if options is None:
        raise ValueError("options are nil")
    return options


def _read_facts(packed: bytes) -> m.Facts:
    return checks.facts(_unpack(packed), "facts")


def _unpack(packed: bytes) -> Any:
    if len(packed) > _FACTS_BYTES_MAX:
        raise ValueError(f"{len(packed)} bytes where facts or options stand")
    try:
        # msgpack ships no types; whatever it refuses is a wrong row, by a dozen types of errors.
        value: Any = msgpack.unpackb(  # pyright: ignore[reportUnknownVariableType]
            packed, use_list=False, strict_map_key=True, max_ext_len=0
        )
    except Exception as error:
        raise ValueError(f"no msgpack: {type(error).__name__}") from error
    return value  # pyright: ignore[reportUnknownVariableType]
