"""The page and the permits that an agent shares with a worker, and the frames between them."""

from __future__ import annotations

import os
from collections.abc import Iterator

import msgpack
import pytest

from evener_wire import codec
from evener_wire import messages as m
from evener_worker import page as p
from evener_worker.attempts import Attempt
from evener_worker.channel import RESULT, RUN, Frame, FrameReader, head_of, pack_items, result_head
from evener_worker.effects import SendResults
from evener_worker.link import encode_results


@pytest.fixture
def permits() -> Iterator[int]:
    fd = p.create_permits()
    yield fd
    os.close(fd)


def test_each_permit_is_taken_once_by_whoever_is_first(permits: int) -> None:
    os.eventfd_write(permits, 5)
    os.eventfd_read(permits)
    assert p.take_permits(permits, 3) == 3
    assert p.take_permits(permits, 3) == 1
    assert p.take_permits(permits, 1) == 0
    with pytest.raises(BlockingIOError):
        os.eventfd_read(permits)


def test_both_ends_see_one_page() -> None:
    fd = p.create_page()
    ours, theirs = p.map_page(fd), p.map_page(fd)
    os.close(fd)
    theirs[p.STARTED] = (1 << 64) - 1
    assert ours[p.STARTED] == (1 << 64) - 1
    assert ours[p.STOP] == 0


# --- Frames ---------------------------------------------------------------------------------------

FRAMES = [
    Frame(RESULT, 7, 1, 250, b"body"),
    Frame(RUN, 1, body=b""),
    Frame(RUN, 2, body=b"two", buffers=(b"a" * 300, b"", b"b" * 70)),
    Frame(RUN, 3, body=b"empty", buffers=(b"",)),
    Frame(RESULT, 8, 0, (1 << 32) - 1, b"x" * 1_000),
]


def joined(frames: list[Frame]) -> bytes:
    """Their bytes, one after the other."""
    return b"".join(b"".join([head_of(frame), *frame.buffers]) for frame in frames)


def plain(frame: Frame) -> Frame:
    """With buffers that compare."""
    return frame._replace(buffers=tuple(bytes(buffer) for buffer in frame.buffers))


def read(data: bytes, piece: int) -> list[Frame]:
    """What a reader makes of bytes that come in pieces."""
    reader = FrameReader()
    frames: list[Frame] = []
    while data:
        target = reader.target()
        if target is None:
            frames += reader.feed(data[:piece])
            data = data[piece:]
        else:
            count = min(piece, len(target), len(data))
            target[:count] = data[:count]
            data = data[count:]
            frame = reader.filled(count)
            frames += [] if frame is None else [frame]
    assert reader.target() is None
    return [plain(frame) for frame in frames]


@pytest.mark.parametrize("piece", [1, 2, 15, 16, 17, 100, 331, 10_000])
def test_frames_survive_any_cut(piece: int) -> None:
    assert read(joined(FRAMES * 3), piece) == [plain(frame) for frame in FRAMES * 3]


def test_the_short_form_of_a_result_is_the_same() -> None:
    assert result_head(7, 1, 250, b"body") == head_of(FRAMES[0])


def test_large_payloads_leave_their_number() -> None:
    body, buffers = pack_items([(1, m.Frames([b"a", b"b"])), (2, b"c"), (3, m.Frames([b"d"]))])
    assert msgpack.unpackb(body, use_list=False) == ((1, 2), (2, b"c"), (3, 1))
    assert buffers == [b"a", b"b", b"d"]


def test_results_are_sent_as_the_codec_would() -> None:
    items: list[tuple[bytes, int, int, m.Payload, int, m.Facts | None]] = [
        (bytes(16), 9, m.DONE, b"value", 12, None),
        (bytes(15) + b"1", 9, m.FAILED, m.Frames([b"x" * 70_000, b"y"]), 1, {"type": "E"}),
        (bytes(15) + b"2", 9, m.LOST, b"", 0, {"signal": 9}),
    ]
    attempts: list[Attempt] = []
    for each in items:
        attempt = Attempt((each[0], each[1]), (each[0], each[1], "f", b"", 0, 0))
        attempt.packed, attempt.buffers = pack_items(each)
        attempts.append(attempt)
    frames = encode_results(SendResults(5, 6, attempts))
    assert [bytes(f) for f in frames] == [bytes(f) for f in codec.encode(m.Result(items), 5, 6)]
    assert codec.decode(frames) == codec.Envelope(5, 6, m.Result(items))
