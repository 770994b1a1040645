"""The demo's input: every source file of the Python that runs it.

Rules of this file: nothing is skipped silently. What cannot be read is part of the input, with the
reason in the place of its content.
"""

from __future__ import annotations

import sysconfig
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

# Where other distributions install theirs, inside the folder of the standard library.
_FOREIGN = frozenset({"site-packages", "dist-packages"})


@dataclass(frozen=True, slots=True)
class Source:
    """One file: its name for people, and its bytes, or why there are none."""

    name: str
    content: bytes
    fault: str | None = None


def standard_library() -> list[Path]:
    """The source files of the standard library, its own tests included where installed."""
    folders = {Path(sysconfig.get_path(name)) for name in ("stdlib", "platstdlib")}
    return sorted(
        path
        for folder in folders
        for path in folder.rglob("*.py")
        if _FOREIGN.isdisjoint(path.relative_to(folder).parts)
    )


def read(paths: Sequence[Path]) -> list[Source]:
    """The files at these paths, in this order. Names are relative to `common_folder(paths)`."""
    folder = common_folder(paths)
    return [_read(path, path.relative_to(folder).as_posix()) for path in paths]


def common_folder(paths: Sequence[Path]) -> Path:
    """The deepest folder that has all of these files below it."""
    parents = [path.parent for path in paths]
    shared = parents[0]
    while not all(parent.is_relative_to(shared) for parent in parents):
        shared = shared.parent
    return shared


def _read(path: Path, name: str) -> Source:
    try:
        return Source(name, path.read_bytes())
    except OSError as error:
        return Source(name, b"", f"cannot be read: {error.strerror or error}")
