"""Payloads: every type arrives as what it was, and no bytes do harm."""

from __future__ import annotations

import math
import random
import sqlite3
import threading
import tracemalloc
from collections import OrderedDict, namedtuple
from dataclasses import dataclass
from decimal import Decimal
from enum import IntEnum
from pathlib import Path
from typing import Any

import msgpack
import numpy as np
import pytest

from evener import payload as module
from evener.errors import NotSendable, PayloadTooLarge, PeerError, UsageError
from evener.payload import (
    ARGUMENT_LISTS,
    ONE_ARGUMENT,
    decode_call,
    decode_chunk_result,
    decode_value,
    encode_call,
    encode_chunk,
    encode_chunk_result,
    encode_value,
)
from evener_wire.limits import FRAMES_MAX, INLINE_BYTES_MAX
from evener_wire.messages import Frames, Payload


@dataclass
class Point:
    x: int
    y: int


class Colour(IntEnum):
    RED = 1


class Listed(list[int]):
    pass


Pair = namedtuple("Pair", "a b")


def nested(depth: int, kind: Any) -> Any:
    value = kind()
    for _ in range(depth):
        value = kind([value])
    return value


PLAIN = [
    None,
    True,
    0,
    -1,
    2**63,
    -(2**63),
    1.5,
    math.inf,
    "",
    "grün \U0001f40e",
    b"",
    b"\x80\xc4",
    [],
    [1, [2, [3]]],
    (),
    (1, (2, [3, (4,)])),
    {1, 2},
    frozenset({(1, 2)}),
    {"a": {1: (None, {2})}},
    {(1, 2): "tuple as key", None: 0, 1.5: 0, b"b": 0, True: 0},
    b"x" * (INLINE_BYTES_MAX + 1),
    ["y" * INLINE_BYTES_MAX, (b"z" * INLINE_BYTES_MAX,)],
]
PICKLED = [
    2**64,
    "\ud800",
    bytearray(b"x"),
    [1, {"deep": (bytearray(b"y"),)}],
    {"\u0107": bytearray(b"mark of bin in a text too")},
    Colour.RED,
    Pair(1, 2),
    Listed([1]),
    OrderedDict(a=1),
    Decimal("1.5"),
    Point(1, 2),
    Path("/tmp"),
    nested(30, tuple),
]


def same(value: Any, back: Any) -> bool:
    return type(value) is type(back) and value == back


@pytest.mark.parametrize("value", PLAIN, ids=lambda value: repr(value)[:30])
def test_plain_data_arrive_as_what_they_were_on_any_link(value: Any) -> None:
    back = decode_value(encode_value(value, trusted=False), trusted=False)
    assert same(value, back)
    args, kwargs, code = decode_call(encode_call("f", (value,), {"k": value}, trusted=False), False)
    assert same(value, args[0])
    assert kwargs == {"k": value}
    assert code is None


@pytest.mark.parametrize("value", PICKLED, ids=lambda value: repr(value)[:30])
def test_everything_else_goes_as_pickle_and_only_on_trusted_links(value: Any) -> None:
    payload = encode_value(value)
    assert first_byte(payload) == 0x80
    assert same(value, decode_value(payload, trusted=True))
    args, kwargs, _ = decode_call(encode_call("f", (value,), {"k": value}), True)
    assert same(value, args[0])
    assert kwargs == {"k": value}
    with pytest.raises(PeerError, match="not trusted"):
        decode_value(payload, trusted=False)
    with pytest.raises(NotSendable, match="needs pickle"):
        encode_value(value, trusted=False)
    with pytest.raises(UsageError, match="insecure"):
        encode_call("f", (value,), trusted=False)


def first_byte(payload: Payload) -> int:
    stream = payload.buffers[0] if isinstance(payload, Frames) else payload
    return memoryview(stream)[0]


def test_inside_deeply_nested_lists_nothing_overflows() -> None:
    deep = nested(900, list)
    assert decode_value(encode_value(deep, trusted=False), False) == deep
    with pytest.raises(NotSendable, match="nested too deep"):
        encode_value(nested(100_000, list))


def test_a_list_that_contains_itself_travels_as_pickle() -> None:
    loop: list[Any] = []
    loop.append(loop)
    back = decode_value(encode_value(loop), True)
    assert back[0] is back


def test_large_bytes_are_neither_copied_nor_packed() -> None:
    large = b"x" * 1_000_000
    payload = encode_call("f", (1, large, 2, large))
    assert isinstance(payload, Frames)
    assert payload.buffers[1] is large
    assert decode_call(payload, False)[0] == [1, large, 2, large]
    result = encode_value(large)
    assert isinstance(result, Frames)
    assert result.buffers[1] is large


def test_large_arrays_travel_beside_the_stream() -> None:
    array = np.arange(100_000)
    payload = encode_call("f", (array, np.arange(10)))
    assert isinstance(payload, Frames)
    assert len(payload.buffers) == 2
    assert np.shares_memory(np.frombuffer(payload.buffers[1], array.dtype), array)
    back = decode_call(payload, True)[0]
    assert np.array_equal(back[0], array)
    # Not contiguous: only pickle itself can copy it.
    assert np.array_equal(decode_value(encode_value(array[::2]), True), array[::2])


def test_a_payload_never_has_more_frames_than_a_message_may_have() -> None:
    arrays = [np.zeros(10_000) for _ in range(600)]
    payload = encode_value(arrays)
    assert isinstance(payload, Frames)
    assert len(payload.buffers) <= FRAMES_MAX // 2
    assert len(decode_value(payload, True)) == 600
    many = encode_call("f", [b"x" * 70_000] * 300)
    assert isinstance(many, Frames)
    assert len(many.buffers) <= FRAMES_MAX // 2
    assert len(decode_call(many, True)[0]) == 300


def test_inline_up_to_the_bound_and_frames_above() -> None:
    assert isinstance(encode_value("x" * (INLINE_BYTES_MAX - 6)), bytes)
    assert isinstance(encode_value("x" * (INLINE_BYTES_MAX - 5)), bytes)
    assert isinstance(encode_value("x" * INLINE_BYTES_MAX), Frames)


def test_too_large_names_what_and_the_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "PAYLOAD_BYTES_MAX", 100_000)
    with pytest.raises(PayloadTooLarge, match=r"the arguments of demo\.f is 100,0\d\d bytes"):
        encode_call("demo.f", ("x" * 100_000,))
    monkeypatch.setattr(module, "FRAME_BYTES_MAX", 70_000)
    with pytest.raises(PayloadTooLarge, match=r"a part of the result of demo\.f"):
        encode_value("x" * 80_000, function="demo.f")


# --- Messages -------------------------------------------------------------------------------------


def test_an_argument_that_cannot_be_sent_is_named() -> None:
    connection = sqlite3.connect(":memory:")
    text = 'cannot send argument "conn" of demo.load: sqlite3.Connection is not picklable'
    with pytest.raises(NotSendable) as caught:
        encode_call("demo.load", (), {"x": 1, "conn": connection})
    assert str(caught.value) == text
    with pytest.raises(NotSendable) as caught:
        encode_call("demo.load", (1, connection), parameters=("x", "conn"))
    assert str(caught.value) == text
    with pytest.raises(NotSendable, match=r"argument 1 of demo\.load:"):
        encode_call("demo.load", (connection,))
    with pytest.raises(NotSendable, match=r'"c" of demo.load \(at \[.db.\]\[1\]\.x\): sqlite3'):
        encode_call("demo.load", (), {"c": {"db": [1, Point(connection, 2)]}})  # type: ignore[arg-type]
    with pytest.raises(NotSendable, match=r"the result of demo\.load: sqlite3"):
        encode_value(connection, function="demo.load")
    connection.close()


def test_without_pickle_the_part_that_needs_it_is_named() -> None:
    with pytest.raises(NotSendable, match=r'"k" of f \(at \[1\]\): numpy\.ndarray needs pickle'):
        encode_call("f", (1,), {"k": [1, np.zeros(3)]}, trusted=False)
    with pytest.raises(NotSendable, match="int of more than 64 bits needs pickle"):
        encode_call("f", (2**64,), trusted=False)


# --- Chunks ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("trusted", [True, False])
def test_chunks_there_and_back(trusted: bool) -> None:
    args, form, code = decode_call(encode_chunk("f", [1, 2, 3], trusted=trusted), trusted)
    assert (args, form, code) == ([1, 2, 3], ONE_ARGUMENT, None)
    pairs = encode_chunk("f", [[1, 2], [3, 4]], ARGUMENT_LISTS, trusted=trusted)
    assert decode_call(pairs, trusted) == ([[1, 2], [3, 4]], ARGUMENT_LISTS, None)
    result = encode_chunk_result([1, None, 3], {1: b"failure"}, trusted=trusted)
    values, failures = decode_chunk_result(result, trusted, 3)
    assert values == [1, None, 3]
    assert failures == {1: b"failure"}
    none_failed = encode_chunk_result([(1,)], {}, trusted=trusted)
    assert decode_chunk_result(none_failed, trusted, 1) == ([(1,)], {})


def test_chunks_of_what_needs_pickle() -> None:
    points = [Point(1, 2), Point(3, 4)]
    args, form, _ = decode_call(encode_chunk("f", points), True)
    assert (args, form) == (points, ONE_ARGUMENT)
    assert decode_chunk_result(encode_chunk_result([*points], {}), True, 2).values == points
    with pytest.raises(NotSendable, match=r"item 2 of f: _thread\.lock is not picklable"):
        encode_chunk("f", [1, threading.Lock()])


def first_stream(payload: Payload) -> Any:
    return payload.buffers[0] if isinstance(payload, Frames) else payload


# --- Bad bytes ------------------------------------------------------------------------------------


def reads(payload: Payload, trusted: bool) -> list[str]:
    """What reading it in every way gave; anything but a value or `PeerError` fails the test."""
    seen: list[str] = []
    for read in (
        lambda: decode_call(payload, trusted),
        lambda: decode_value(payload, trusted),
        lambda: decode_chunk_result(payload, trusted, 2),
    ):
        try:
            read()
            seen.append("value")
        except PeerError as error:
            seen.append("refused" if len(str(error)) < 3_000 else "refused at length")
    return seen


def extension(depth: int) -> bytes:
    data: Any = msgpack.packb([])
    for _ in range(depth):
        data = msgpack.packb([msgpack.ExtType(1, data)])
    return bytes(data)


HOSTILE: dict[str, bytes | Frames] = {
    "empty": b"",
    "pickle": b"cos\nsystem\n(S'true'\ntR.",
    "no array": msgpack.packb({"a": 1}),
    "a text": msgpack.packb("ab"),
    "trailing": msgpack.packb([1]) + b"\x00",
    "never used": b"\xc1",
    "huge array": b"\xdd\xff\xff\xff\xff",
    "huge bytes": b"\xc6\xff\xff\xff\xff",
    "lists 10^5 deep": b"\x91" * 100_000 + b"\xc0",
    "extensions 100 deep": extension(100),
    "unhashable key": b"\x91\x81\x90\xc0",
    "unhashable in set": msgpack.packb([msgpack.ExtType(2, msgpack.packb([[]]))]),
    "frame that is none": msgpack.packb([msgpack.ExtType(4, b"")]),
    "unknown extension": msgpack.packb([msgpack.ExtType(99, b"")]),
    "bad timestamp": b"\x91\xc7\x0c\xff" + b"\xff" * 12,
    "bad text": b"\x91\xa1\xff",
    "keywords are a list": msgpack.packb([[], [1]]),
    "chunk of form 3": msgpack.packb([[], 3]),
    "chunk of form True": msgpack.packb([[], True]),
    "code is a text": msgpack.packb([[], None, "x"]),
    "more frames": Frames([msgpack.packb([1]), b"x"]),
    "fewer frames": Frames([msgpack.packb([msgpack.ExtType(4, b"")] * 2), b"x"]),
    "failure of item 9": msgpack.packb([[1, 2], [[9, b"x"]]]),
    "failure that is a text": msgpack.packb([[1, 2], [[0, "x"]]]),
    "failures are a number": msgpack.packb([[1, 2], 7]),
    "declared and not there": (b"\xdd\x00\x00\xff\xff" * 1_000).ljust(65_535, b"\xc0"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_payloads_are_refused(name: str) -> None:
    tracemalloc.start()
    try:
        seen = reads(HOSTILE[name], trusted=False)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert "refused" in seen
    assert peak < 20_000_000, "memory must follow from what is there, not from what is declared"


def test_pickles_are_never_loaded_untrusted(tmp_path: Path) -> None:
    canary = tmp_path / "canary"

    class Evil:
        def __reduce__(self) -> Any:
            return Path.touch, (canary,)

    payload = encode_value(Evil())
    assert set(reads(payload, trusted=False)) == {"refused"}
    assert not canary.exists()
    with pytest.raises(PeerError):
        decode_value(Frames([b"\x80\x05", b"x"]), trusted=False)


def test_a_pickle_that_cannot_be_loaded_says_why() -> None:
    with pytest.raises(PeerError, match="cannot unpickle: ModuleNotFoundError: No module named"):
        decode_value(b"\x80\x05cno_such_module\nthing\n.", trusted=True)


def test_any_bytes_give_a_value_or_a_peer_error() -> None:
    rng = random.Random(7)
    seeds = [bytes(first_stream(encode_call("f", (1, "two", (3.0, {4}), [b"5"]), {"k": None})))]
    seeds += [value for value in HOSTILE.values() if isinstance(value, bytes) and value][:20]
    for _ in range(4_000):
        data = bytearray(rng.choice(seeds)[:200])
        for _ in range(rng.randint(1, 4)):
            data[rng.randrange(len(data))] = rng.randrange(256)
        if data[0] != 0x80:
            reads(bytes(data), trusted=rng.random() < 0.5)


def test_threads_do_not_disturb_each_other() -> None:
    wrong: list[Any] = []

    def work(number: int) -> None:
        for step in range(300):
            value = (number, [step, {"k": (step,)}])
            if decode_value(encode_value(value), False) != value:
                wrong.append(value)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong
