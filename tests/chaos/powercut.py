"""What a power cut may leave of files whose last writes were not synced.

The log that `disk_shim.c` keeps says, for each sector of 512 bytes, what a sync made sure of and
what was written over it since. After a power cut a sector has any one of these contents, and each
sector for itself: writes are torn, out of order, or gone. Truncations are there as a whole or not,
and names of files come and go in order, as the journal of a file system does it. Rules of this
file: it knows no SQLite and no evener.
"""

from __future__ import annotations

import os
import random
import struct
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

SECTOR = 512
_SECTORS_IN_PAGE = 8
_MAGIC = 0x64736B31
_RECORD = struct.Struct("<II4Q4I")
_WRITE, _TRUNCATE, _SYNC, _SYNC_FAILED, _CREATE, _UNLINK, _LINK, _FOLDER_SYNC = range(1, 9)


class Record(NamedTuple):
    """One line of the log, as `struct record` of the shim has it."""

    kind: int
    sequence: int
    inode: int
    offset: int
    size: int
    name: str
    other: str
    old: bytes
    new: bytes


class Version(NamedTuple):
    """What a sector had from then on; None: the file ended before it."""

    sequence: int
    content: bytes | None


@dataclass(slots=True)
class Cut:
    """What became of what was not synced."""

    sectors: int = 0
    lost: int = 0
    torn: int = 0
    """Files of which some sectors are newer than others."""
    names: int = 0
    names_lost: int = 0


@dataclass(slots=True)
class _File:
    sectors: dict[int, list[Version]] = field(default_factory=dict)
    """Only those that are not what they were at the last sync, which is the first version."""
    doomed: set[int] = field(default_factory=set)
    """Their sync failed: the kernel takes them for written, and the next sync skips them."""
    truncations: list[int] = field(default_factory=list)

    def change(
        self, number: int, before: bytes | None, record: Record, after: bytes | None
    ) -> None:
        versions = self.sectors.setdefault(number, [Version(0, before)])
        versions.append(Version(record.sequence, after))
        page = number // _SECTORS_IN_PAGE * _SECTORS_IN_PAGE
        self.doomed.difference_update(range(page, page + _SECTORS_IN_PAGE))

    def latest(self, number: int, before: bytes | None) -> bytes | None:
        versions = self.sectors.get(number)
        return versions[-1].content if versions else before

    def synced(self, until: int) -> None:
        self.truncations = [sequence for sequence in self.truncations if sequence > until]
        for number, versions in list(self.sectors.items()):
            if number in self.doomed:
                continue
            kept = [version for version in versions if version.sequence > until]
            if not kept:
                del self.sectors[number]
            else:
                durable = versions[len(versions) - len(kept) - 1].content
                self.sectors[number] = [Version(0, durable), *kept]

    def sync_failed(self, until: int) -> None:
        self.doomed.update(
            n for n, versions in self.sectors.items() if versions[1].sequence <= until
        )


def read_log(data: bytes) -> Iterator[Record]:
    """All records; the last one may be half of one, of a process that died."""
    at = 0
    while at + _RECORD.size <= len(data):
        magic, kind, *numbers = _RECORD.unpack_from(data, at)
        sequence, inode, offset, size, name, other, old, new = numbers
        if magic != _MAGIC:
            raise ValueError(f"no record at {at} of the log")
        at += _RECORD.size
        parts: list[bytes] = []
        for length in (name, other, old, new):
            parts.append(data[at : at + length])
            at += length
        if at > len(data):
            return
        yield Record(
            kind, sequence, inode, offset, size, parts[0].decode(), parts[1].decode(), *parts[2:]
        )


def _pending(records: Iterator[Record]) -> tuple[dict[int, _File], list[Record]]:
    """What no sync covers: of the content of each inode, and of names."""
    files: dict[int, _File] = {}
    names: list[Record] = []
    for record in records:
        file = files.setdefault(record.inode, _File())
        if record.kind == _WRITE:
            _written(file, record)
        elif record.kind == _TRUNCATE:
            _truncated(file, record)
        elif record.kind == _SYNC:
            file.synced(record.offset)
        elif record.kind == _SYNC_FAILED:
            file.sync_failed(record.offset)
        elif record.kind == _FOLDER_SYNC:
            names = [name for name in names if name.sequence > record.offset]
        else:
            names.append(record)
    return files, names


def _before(record: Record, number: int, first: int) -> bytes | None:
    at = (number - first) * SECTOR
    return record.old[at : at + SECTOR] or None


def _written(file: _File, record: Record) -> None:
    first = min(record.offset, record.size) // SECTOR
    end = record.offset + len(record.new)
    _extended(file, record, record.offset)
    for number in range(record.offset // SECTOR, (end + SECTOR - 1) // SECTOR):
        start = number * SECTOR
        before = _before(record, number, first)
        content = bytearray(file.latest(number, before) or b"")
        from_, to = max(record.offset, start) - start, min(end, start + SECTOR) - start
        content.extend(bytes(max(0, to - len(content))))
        content[from_:to] = record.new[start + from_ - record.offset : start + to - record.offset]
        file.change(number, before, record, bytes(content))


def _truncated(file: _File, record: Record) -> None:
    file.truncations.append(record.sequence)
    first = min(record.offset, record.size) // SECTOR
    for number in range(first, (record.size + SECTOR - 1) // SECTOR):
        before = _before(record, number, first)
        content = (file.latest(number, before) or b"")[: max(0, record.offset - number * SECTOR)]
        file.change(number, before, record, content or None)
    _extended(file, record, record.offset)


def _extended(file: _File, record: Record, end: int) -> None:
    """Zeros between the end of the file and this place, if that is behind it."""
    first = record.size // SECTOR
    for number in range(first, (end + SECTOR - 1) // SECTOR if end > record.size else first):
        before = _before(record, number, min(record.offset, record.size) // SECTOR)
        content = file.latest(number, before) or b""
        length = min(SECTOR, end - number * SECTOR)
        file.change(number, before, record, content.ljust(length, b"\0"))


# --- The cut --------------------------------------------------------------------------------------


def cut_power(log: bytes, folders: list[Path], rng: random.Random) -> Cut:
    """Make of the files in these folders what a power cut might have left. Nobody has them open."""
    files, names = _pending(read_log(log))
    found = Cut()
    paths = {path.stat().st_ino: path for folder in folders for path in folder.iterdir()}
    for inode, file in files.items():
        if file.sectors and inode in paths:
            _leave(paths[inode], file, rng, found)
    kept = rng.choice([0, len(names), rng.randint(0, len(names))])
    for record in reversed(names[kept:]):
        _undo(record)
    found.names += len(names)
    found.names_lost += len(names) - kept
    return found


def _leave(path: Path, file: _File, rng: random.Random, found: Cut) -> None:
    """Choose a version of each sector: all old, all new, those until some moment, or any."""
    sectors = file.sectors
    last = max(versions[-1].sequence for versions in sectors.values())
    first = min(versions[1].sequence for versions in sectors.values()) - 1
    how = rng.choice(["old", "new", "until", "until", "any", "any", "any"])
    moment = {"old": first, "new": last}.get(how, rng.randint(first, last))
    count = len(file.truncations)
    happened = rng.choice([0, count, rng.randint(0, count)])
    chosen: dict[int, bytes | None] = {}
    lost = 0
    for number, versions in sectors.items():
        possible = _possible(versions, file.truncations, happened)
        if how == "any":
            picked = rng.choice(possible)
        else:
            picked = [v for v in possible if v.sequence <= moment or v is possible[0]][-1]
        lost += picked is not versions[-1]
        chosen[number] = picked.content
    _write(path, chosen, rng)
    found.sectors += len(sectors)
    found.lost += lost
    found.torn += 0 < lost < len(sectors)


def _possible(versions: list[Version], truncations: list[int], happened: int) -> list[Version]:
    """What a sector may be when only the first of these truncations are on disk: each of them is
    there as a whole or not, and what was written after it is not there without it."""
    if happened < len(truncations):
        versions = [v for v in versions if v.sequence < truncations[happened]]
    begun = [n for n, v in enumerate(versions) if v.sequence in truncations[:happened]]
    return versions[begun[-1] :] if begun else versions


def _write(path: Path, chosen: dict[int, bytes | None], rng: random.Random) -> None:
    """The file with these sectors, and as long as those that exist make it."""
    with path.open("r+b") as file:
        length = os.fstat(file.fileno()).st_size
        untouched = (length + SECTOR - 1) // SECTOR
        while untouched and untouched - 1 in chosen:
            untouched -= 1
        end = min(length, untouched * SECTOR)
        for number, content in chosen.items():
            if content is not None:
                end = max(end, number * SECTOR + len(content))
        longest = max(length, end)
        for number, content in chosen.items():
            file.seek(number * SECTOR)
            file.write((content or b"").ljust(SECTOR, b"\0"))
        # Of what is missing at its end the length may be there already: zeros.
        file.truncate(rng.choice([end, end, end, longest]))


def _undo(record: Record) -> None:
    if record.kind == _CREATE:
        Path(record.name).unlink(missing_ok=True)
    elif record.kind == _LINK:
        Path(record.other).unlink(missing_ok=True)
    elif record.kind == _UNLINK and not Path(record.name).exists():
        os.link(record.other, record.name)
