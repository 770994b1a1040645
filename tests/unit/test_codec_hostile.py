"""What hostile bytes may do to the decoder: one `PeerError`, and memory linear in their number.

Rules of this file: memory is measured, time is not, as that would fail on a busy machine.
"""

from __future__ import annotations

import struct
import tracemalloc
from collections.abc import Sequence
from typing import Final

import msgpack
import pytest

from evener_wire import messages as m
from evener_wire.codec import encode
from evener_wire.limits import BATCH_ITEMS_MAX, HEAD_BYTES_MAX, MIB
from tests.wire_samples import SAMPLES, TASK, refused

# --- Hostile bytes --------------------------------------------------------------------------------

# What a valid Submit, Result and Goodbye look like up to the place where the hostile part goes.
AHEAD: Final = {
    "nothing": b"",
    "kind": b"\x94",
    "session": b"\x94\x07",
    "field": b"\x94\x07\x01\x01",
    "items": b"\x95\x10\x01\x01",
    "item": b"\x95\x10\x01\x01\x91",
    "options": b"\x95\x10\x01\x01\x91\x94\xc4\x10" + TASK + b"\xa1f\xc4\x00",
    "facts": b"\x96\x16\x01\x01\x01\xa1s",
    "ignored": b"\x95\x07\x01\x01\x01",
}

HOSTILE: Final = {
    "never used 0xc1": b"\xc1",
    "invalid UTF-8": b"\xa2\xff\xfe",
    "overlong UTF-8": b"\xa2\xc0\x80",
    "lone surrogate": b"\xa3\xed\xa0\x80",
    "truncated text": b"\xaaabc",
    "text of 4 GiB": b"\xdb\xff\xff\xff\xff",
    "bytes of 4 GiB": b"\xc6\xff\xff\xff\xff",
    "array of 4 G": b"\xdd\xff\xff\xff\xff",
    "map of 4 G": b"\xdf\xff\xff\xff\xff",
    "extension of 4 GiB": b"\xc9\xff\xff\xff\xff\x01",
    "timestamp": b"\xd6\xff\x00\x00\x00\x01",
    "timestamp beyond a second": b"\xc7\x0c\xff" + struct.pack(">Iq", 0xFFFF_FFFF, 1),
    "empty extension": b"\xc7\x00\x05",
    "number as key": b"\x81\x01\x01",
    "nil as key": b"\x81\xc0\x01",
    "array as key": b"\x81\x90\x01",
    "float as key": b"\x81\xcb" + bytes(8) + b"\x01",
    "key twice": b"\x82\xa1a\x01\xa1a\x02",
    "bytes as key": b"\x81\xc4\x01a\x01",
}


@pytest.mark.parametrize("name", HOSTILE)
@pytest.mark.parametrize("place", AHEAD)
def test_hostile_values_are_refused_wherever_they_stand(place: str, name: str) -> None:
    start = AHEAD[place] + HOSTILE[name]
    if (place, name) == ("ignored", "bytes as key"):
        return  # well-formed msgpack in a field that nobody reads
    refused([start])
    refused([start + b"\xc0" * 8])


@pytest.mark.parametrize("code", range(-128, 128))
def test_no_extension_type_is_allowed(code: int) -> None:
    for data in (b"", b"\0", bytes(4), bytes(8), bytes(12), bytes(300)):
        refused([b"\x95\x07\x01\x01\x01" + msgpack.packb(msgpack.ExtType(code & 127, data))])
    refused([b"\x95\x07\x01\x01\x01\xd4" + struct.pack("b", code) + b"\0"])


@pytest.mark.parametrize("sample", SAMPLES, ids=[s[0] for s in SAMPLES])
def test_every_truncation_and_every_trailing_byte_is_refused(
    sample: tuple[str, int, int, m.Message],
) -> None:
    first, *others = encode(sample[3], sample[1], sample[2])
    for length in range(len(first)):
        refused([first[:length], *others])
    refused([first + b"\xc0", *others])
    refused([first + first, *others])


def test_random_protocols_are_refused() -> None:
    for start in (
        b"GET / HTTP/1.1\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        b"SSH-2.0-OpenSSH_9.2\r\n",
        b"*1\r\n$4\r\nPING\r\n",
        b"\x80\x05\x95",  # a pickle
        b"",
    ):
        refused([start])


@pytest.mark.parametrize("depth", [8, 9, 100, 500, 1_000, 1_023, 1_024, 1_025, 5_000, 100_000])
@pytest.mark.parametrize("opening", [b"\x91", b"\x81\xa1a", b"\xdc\x00\x01", b"\x92\xc0"])
@pytest.mark.parametrize("place", ["nothing", "kind", "field", "item", "options", "facts"])
def test_no_depth_of_nesting_escapes(place: str, opening: bytes, depth: int) -> None:
    # Well-formed msgpack, as far as it goes: what comes after the depth is in order.
    more = {"kind": b"\x01\x01\x01", "item": b"\xc2", "options": b"\xc2"}
    refused([AHEAD[place] + opening * depth + b"\xc0" + more.get(place, b"")])


# --- Memory ---------------------------------------------------------------------------------------


def peak_of_refusing(frames: Sequence[bytes]) -> int:
    """The most memory that was in use at once while these frames were decoded, in bytes."""
    refused(frames)  # once before, so that caches and lazy imports do not count
    tracemalloc.start()
    try:
        refused(frames)
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize(
    "length", [b"\xdc\xff\xff", b"\xdc\x80\x00", b"\xdd\x00\x00\x80\x00", b"\xdc\x08\x00"]
)
@pytest.mark.parametrize("times", [170, 341, 1_000, 100_000])
def test_nothing_is_built_from_lengths_that_are_only_declared(length: bytes, times: int) -> None:
    hostile = (length * times)[: HEAD_BYTES_MAX - 100]
    assert peak_of_refusing([hostile]) < 1 * MIB + 4 * len(hostile)


def _nest(element: bytes) -> bytes:
    """As many elements as a head holds, in arrays that are each short enough."""
    each = BATCH_ITEMS_MAX
    array = b"\xdc" + struct.pack(">H", each) + element * each
    count = (HEAD_BYTES_MAX - 100) // len(array)
    return b"\x95\x06\x01\x01\xdd" + struct.pack(">I", count) + array * count + b"\xc0"


@pytest.mark.parametrize(
    ("element", "factor"),
    [
        (b"\x90", 16),  # a million empty arrays: one shared object, 8 bytes per reference
        (b"\x80", 90),  # a million empty maps: 64 bytes each is the worst that msgpack can do
        (b"\x91\xc0", 48),
        (b"\xe0", 56),  # numbers below -5 are objects of their own
        (b"\xcd\x01\x01", 20),
        (b"\xa2ab", 40),
        (b"\x81\xa1a\xc0", 120),
    ],
)
def test_memory_is_linear_in_the_bytes_received(element: bytes, factor: int) -> None:
    whole = _nest(element)
    assert len(whole) > HEAD_BYTES_MAX // 2
    assert peak_of_refusing([whole]) < factor * len(whole) + 2 * MIB


def test_small_heads_take_less_than_a_megabyte_whatever_they_declare() -> None:
    for length in (b"\xdc\x02\x00", b"\xdc\x01\xff", b"\xdc\x00\xff"):
        assert peak_of_refusing([(length * 200)[:512]]) < 1 * MIB
