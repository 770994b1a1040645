"""Is this file a journal, and whole? Asked before SQLite opens it, since SQLite repairs silently.

SQLite ends its write-ahead log (FILE-wal) at the first frame that does not fit. After a crash that
is right: the last transaction was not synced, so nobody was told of it. But the same rule would
drop all synced transactions behind one damaged frame. What was not synced is one transaction at
most, and each of ours writes the page of `meta` once and ends with one commit mark: more than that
behind the last good transaction is damage. Rules of this file: it only reads.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Iterable
from pathlib import Path
from typing import IO, Final, NamedTuple

from evener_broker.journal_sums import (
    FRAME_BYTES,
    FRAME_HEADER_BYTES,
    Sums,
    add,
    after_frame,
    little,
    page_sums,
)
from evener_wire.errors import EvenerError

# Exit codes of sysexits.h: EX_DATAERR and EX_IOERR.
EXIT_DAMAGED: Final = 65
EXIT_UNUSABLE: Final = 74

APPLICATION_ID: Final = 0x45564E52  # "EVNR"
VERSION: Final = 3
PAGE_BYTES: Final = 4_096
META_PAGE: Final = 3  # the second is SQLite's map of pages

_HEADER_BYTES: Final = 100
_MAGIC: Final = b"SQLite format 3\0"
_WAL_HEADER: Final = struct.Struct(">8I")
_FRAME_HEADER: Final = struct.Struct(">6I")
_WAL_MAGIC: Final = 0x377F0682  # the last bit says that checksums take numbers as big-endian

# Frames that are summed at a time, a megabyte. More: more memory. Fewer: slower.
_FRAMES_AT_ONCE: Final = 256

assert FRAME_BYTES == FRAME_HEADER_BYTES + PAGE_BYTES

_RESTORE: Final = (
    "To keep what it holds, restore it from a backup; to do without, move it and the files beside "
    "it (-wal) away: the broker then starts with an empty journal"
)


class JournalError(EvenerError):
    """Raised when a journal cannot be used. `code` is what the broker's process exits with."""

    def __init__(self, text: str, code: int = EXIT_UNUSABLE) -> None:
        super().__init__(text)
        self.code = code


def damaged(path: Path, what: str) -> JournalError:
    """The error for a journal that holds something wrong."""
    return JournalError(f"the journal {path} is damaged: {what}. {_RESTORE}", EXIT_DAMAGED)


def wal_of(path: Path) -> Path:
    """Where SQLite keeps the transactions that are not in the file itself yet."""
    return path.with_name(f"{path.name}-wal")


def check_files(path: Path, descriptor: int) -> None:
    """Raises `JournalError` if the file of this descriptor, or its log, cannot be trusted."""
    header = os.pread(descriptor, _HEADER_BYTES, 0)
    _check_header(path, header)
    if (other := path.with_name(f"{path.name}-journal")).exists():
        raise JournalError(
            f"{other} does not belong to a journal of evener, and SQLite would write its content "
            f"into {path}: move it away",
            EXIT_DAMAGED,
        )
    try:
        with wal_of(path).open("rb") as file:
            reason, header = _what_is_wrong(file, os.fstat(file.fileno()).st_size, header)
    except FileNotFoundError:
        return
    if reason is not None:
        raise damaged(wal_of(path), reason)
    _check_header(path, header)  # a newer evener may have died before it wrote its log back


def _check_header(path: Path, header: bytes) -> None:
    if not header:
        raise damaged(path, "it is empty, which a journal never is")
    if not header.startswith(_MAGIC) or len(header) < _HEADER_BYTES:
        raise JournalError(
            f"{path} is not a journal but some other file: name another with --journal",
            EXIT_DAMAGED,
        )
    (version,) = struct.unpack_from(">I", header, 60)
    (application,) = struct.unpack_from(">I", header, 68)
    if application != APPLICATION_ID:
        raise JournalError(
            f"{path} is an SQLite database of another program: name another file with --journal",
            EXIT_DAMAGED,
        )
    if version > VERSION:
        raise JournalError(
            f"the journal {path} has format {version}, and this version of evener reads up to "
            f"{VERSION}: start the newer evener that wrote it, or name another file with --journal",
            EXIT_DAMAGED,
        )
    if version < 1:
        raise damaged(path, f"it says that it has format {version}")
    (page_bytes,) = struct.unpack_from(">H", header, 16)
    if page_bytes != PAGE_BYTES:
        raise damaged(path, f"its pages have {page_bytes} bytes instead of {PAGE_BYTES}")


# --- The write-ahead log --------------------------------------------------------------------------


class _Frame(NamedTuple):
    page: int
    commits: bool
    fits: bool  # its checksum, and so do those of all frames before it
    begin: bytes  # of its page


def _what_is_wrong(file: IO[bytes], size: int, first: bytes) -> tuple[str | None, bytes]:
    """A reason or None, and what the header of the journal, `first`, becomes with this log."""
    header = file.read(_WAL_HEADER.size)
    if size <= _WAL_HEADER.size:
        # The header is synced before the first frame is written: nothing was ever in it.
        return None, first
    magic, _, page_bytes, _, *salts, sum_0, sum_1 = _WAL_HEADER.unpack(header)
    big_endian = bool(magic & 1)
    sums = add((0, 0), little(header[:24], big_endian=big_endian))
    if magic & ~1 != _WAL_MAGIC or page_bytes != PAGE_BYTES or sums != (sum_0, sum_1):
        return "its header is wrong, and transactions stand behind it", first
    tail: list[_Frame] = []
    for frame in _frames(file, salts, sums, big_endian):
        tail.append(frame)
        if frame.fits and frame.commits:
            first = next((frame.begin for frame in reversed(tail) if frame.page == 1), first)
            tail.clear()
    # What is left is of this log's time, and SQLite would drop it.
    if any(frame.commits for frame in tail[:-1]):
        what = "a transaction in it is broken, and others that were synced later stand behind it"
        return what, first
    if sum(frame.page == META_PAGE for frame in tail) > 1:
        what = "the end of a transaction in it is broken, and another one stands behind it"
        return what, first
    return None, first


def _frames(
    file: IO[bytes], salts: list[int], sums: tuple[int, int], big_endian: bool
) -> Iterable[_Frame]:
    """The frames of this log's time; those of earlier ones, which it overwrites, are left out."""
    fits = True
    while True:
        frames = file.read(_FRAMES_AT_ONCE * FRAME_BYTES)
        frames = frames[: len(frames) // FRAME_BYTES * FRAME_BYTES]  # a torn one is none
        if not frames:
            return
        pages: list[Sums] = []
        for number, start in enumerate(range(0, len(frames), FRAME_BYTES)):
            frame = frames[start : start + FRAME_BYTES]
            page, commit, salt_0, salt_1, sum_0, sum_1 = _FRAME_HEADER.unpack_from(frame)
            ours = [salt_0, salt_1] == salts
            if fits and ours:
                pages = pages or page_sums(little(frames, big_endian=big_endian))
                header = little(frame[:FRAME_HEADER_BYTES], big_endian=big_endian)
                sums = after_frame(sums, header, pages[number])
                fits = sums == (sum_0, sum_1)
            else:
                fits = False
            if ours:
                begin = frame[FRAME_HEADER_BYTES : FRAME_HEADER_BYTES + _HEADER_BYTES]
                yield _Frame(page, commit != 0, fits, begin)
