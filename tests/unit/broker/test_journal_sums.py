"""The checksum of SQLite's log: many frames at a time as one number after the other."""

from __future__ import annotations

import random
import sqlite3
import struct
from contextlib import closing
from pathlib import Path

import pytest

from evener_broker.journal_sums import FRAME_BYTES, add, after_frame, little, page_sums

RNG = random.Random(1)


@pytest.mark.parametrize("count", [1, 2, 3, 64, 257])
def test_frames_beside_each_other_are_as_one_after_the_other(count: int) -> None:
    frames = RNG.randbytes(count * FRAME_BYTES)
    sums = both = (RNG.getrandbits(32), RNG.getrandbits(32))
    for number, page in enumerate(page_sums(frames)):
        frame = frames[number * FRAME_BYTES : (number + 1) * FRAME_BYTES]
        sums = add(add(sums, frame[:8]), frame[24:])
        both = after_frame(both, frame, page)
        assert sums == both


@pytest.mark.parametrize("byte", [b"\0", b"\xff", b"\x80"])
def test_no_lane_runs_into_the_next(byte: bytes) -> None:
    frames = byte * (3 * FRAME_BYTES)
    assert page_sums(frames) == [add((0, 0), byte * 4_096)] * 3


def test_numbers_of_the_other_order() -> None:
    assert little(b"\1\2\3\4", big_endian=True) == b"\4\3\2\1"
    assert little(b"\1\2\3\4", big_endian=False) == b"\1\2\3\4"


def test_a_log_of_sqlite_fits(tmp_path: Path) -> None:
    path = tmp_path / "some.db"
    with closing(sqlite3.connect(path, isolation_level=None)) as db:
        db.execute("PRAGMA page_size=4096")
        db.execute("PRAGMA journal_mode=WAL").fetchall()
        db.execute("CREATE TABLE t (data BLOB)")
        db.executemany("INSERT INTO t VALUES (?)", [(RNG.randbytes(900),) for _ in range(200)])
        log = (tmp_path / "some.db-wal").read_bytes()
    big_endian = bool(log[3] & 1)
    sums = add((0, 0), little(log[:24], big_endian=big_endian))
    assert sums == struct.unpack(">2I", log[24:32])
    frames = log[32:]
    turned = little(frames, big_endian=big_endian)
    for number, page in enumerate(page_sums(turned)):
        start = number * FRAME_BYTES
        sums = after_frame(sums, turned[start : start + 24], page)
        assert sums == struct.unpack(">2I", frames[start + 16 : start + 24])
