"""SQLite's checksum of frames in its write-ahead log, for many frames at a time.

It is two sums that take one 32-bit number each, in turn, and each other: number by number that
takes Python 150 us for a page, and a log has thousands. But it is linear: what a page adds to the
sums does not depend on what they were before. So the pages of many frames are summed beside each
other, each in a lane of 64 bits of one large integer, and then one after the other takes up what
was before. Rules of this file: no I/O.
"""

from __future__ import annotations

from array import array
from typing import Final

PAGE_BYTES: Final = 4_096
FRAME_HEADER_BYTES: Final = 24
FRAME_BYTES: Final = FRAME_HEADER_BYTES + PAGE_BYTES

_WORD: Final = 0xFFFF_FFFF
_LANE_BYTES: Final = 8

# Numbers of a frame that the checksum takes beside those of the page: the first eight bytes.
_TAKEN_BYTES: Final = 8

Sums = tuple[int, int]


def _steps(count: int) -> tuple[Sums, Sums]:
    """What so many pairs of zeros do with the sums 1, 0 and with 0, 1."""
    return add((1, 0), bytes(8 * count)), add((0, 1), bytes(8 * count))


def add(sums: Sums, data: bytes | memoryview) -> Sums:
    """The sums after this data, whose numbers are little-endian; the definition."""
    first, second = sums
    words = memoryview(data).cast("B")
    for at in range(0, len(words), 8):
        first = (first + int.from_bytes(words[at : at + 4], "little") + second) & _WORD
        second = (second + int.from_bytes(words[at + 4 : at + 8], "little") + first) & _WORD
    return first, second


def page_sums(frames: bytes | memoryview) -> list[Sums]:
    """What the page of each of these frames, whose numbers are little-endian, adds to zero sums."""
    count, rest = divmod(len(frames), FRAME_BYTES)
    assert not rest
    stride = FRAME_BYTES // _LANE_BYTES
    pairs = memoryview(frames).cast("Q")
    lows = int.from_bytes(b"\xff\xff\xff\xff\0\0\0\0" * count, "little")
    first = second = 0
    for at in range(FRAME_HEADER_BYTES // _LANE_BYTES, stride):
        both = int.from_bytes(pairs[at::stride].tobytes(), "little")
        # A sum of three numbers of 32 bits stays within its lane.
        first = (first + second + (both & lows)) & lows
        second = (first + second + (both >> 32 & lows)) & lows
    lanes = (_lanes(first, count), _lanes(second, count))
    return list(zip(*lanes, strict=True))


def _lanes(number: int, count: int) -> list[int]:
    data = number.to_bytes(_LANE_BYTES * count, "little")
    return [int.from_bytes(data[at : at + 4], "little") for at in range(0, len(data), _LANE_BYTES)]


def after_frame(sums: Sums, header: bytes | memoryview, page: Sums) -> Sums:
    """The sums after a frame: what its header begins with, and its page."""
    first, second = add(sums, header[:_TAKEN_BYTES])
    (one, two), (three, four) = _OF_PAGE
    return (
        (one * first + three * second + page[0]) & _WORD,
        (two * first + four * second + page[1]) & _WORD,
    )


def little(data: bytes, *, big_endian: bool) -> bytes:
    """Data whose numbers may be big-endian, with numbers that are little-endian."""
    if not big_endian:
        return data
    words = array("I", data)
    assert words.itemsize == 4
    words.byteswap()
    return words.tobytes()


_OF_PAGE: Final = _steps(PAGE_BYTES // 8)
