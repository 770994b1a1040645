"""A small coverage-guided fuzzer: inputs that reach new places are kept, and changed further.

Rules of this file: it knows nothing of evener. A target is a function of an input that raises on a
finding, the inputs it begins with, and a way to change one. Places are pairs of lines that follow
each other in the files a target names, seen by `sys.settrace`: slow, but there wherever Python is.
"""

from __future__ import annotations

import hashlib
import random
import sys
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import CodeType, FrameType
from typing import Any, Final

Place = tuple[CodeType, int, int]

# How often an input that was kept last is taken, against any of the others.
_NEWEST_SHARE: Final = 0.3
_NEWEST: Final = 32


@dataclass(frozen=True)
class Target:
    """What is fuzzed. `change` gets a generator, an input, and another one to take parts from."""

    name: str
    run: Callable[[bytes], object]
    seeds: Callable[[], Iterable[bytes]]
    change: Callable[[random.Random, bytes, bytes], bytes]
    files: Collection[str]


@dataclass
class Outcome:
    """What a run came to."""

    executions: int = 0
    seconds: float = 0.0
    places: int = 0
    kept: list[bytes] = field(default_factory=list)


class Tracer:
    """Which places of some files are reached while the block runs."""

    def __init__(self, files: Collection[str]) -> None:
        self._files = files
        self._known: dict[CodeType, bool] = {}
        self.places: set[Place] = set()

    def __enter__(self) -> Tracer:
        self.places = set()
        sys.settrace(self._on_call)
        return self

    def __exit__(self, *_: object) -> None:
        sys.settrace(None)

    def _on_call(self, frame: FrameType, event: str, argument: Any) -> Any:
        code = frame.f_code
        wanted = self._known.get(code)
        if wanted is None:
            wanted = self._known[code] = code.co_filename.endswith(tuple(self._files))
        if not wanted:
            return None
        places, last = self.places, 0

        def on_line(frame: FrameType, event: str, argument: Any) -> Any:
            nonlocal last
            line = frame.f_lineno
            places.add((code, last, line))
            last = line
            return on_line

        return on_line


@contextmanager
def untraced() -> Iterator[None]:
    """A block that is not looked at: a check, which is the same each time, and long."""
    tracer = sys.gettrace()
    sys.settrace(None)
    try:
        yield
    finally:
        sys.settrace(tracer)


class Finding(AssertionError):
    """An input that a target does not stand."""

    def __init__(self, target: str, data: bytes) -> None:
        super().__init__(f"{target}: bytes.fromhex({data.hex()!r})")
        self.data = data


class Fuzzer:
    """One run over a target. The same seed and number of executions give the same inputs."""

    def __init__(self, target: Target, seed: int) -> None:
        self._target = target
        self._rng = random.Random(seed)
        self._tracer = Tracer(target.files)
        self._seen: set[Place] = set()
        self.outcome = Outcome()

    def run(self, seconds: float, corpus: Iterable[bytes] = ()) -> Outcome:
        """Take in seeds and corpus, then change what was kept until the time is over."""
        began = time.monotonic()
        for data in (*self._target.seeds(), *corpus):
            self._try(data)
        rng, kept = self._rng, self.outcome.kept
        while time.monotonic() - began < seconds:
            newest = rng.random() < _NEWEST_SHARE
            data = rng.choice(kept[-_NEWEST:] if newest else kept)
            self._try(self._target.change(rng, data, rng.choice(kept)))
        self.outcome.seconds = time.monotonic() - began
        self.outcome.places = len(self._seen)
        return self.outcome

    def _try(self, data: bytes) -> None:
        self.outcome.executions += 1
        places = reached(self._target, self._tracer, data)
        if not places <= self._seen:
            self._seen |= places
            self.outcome.kept.append(data)


def reached(target: Target, tracer: Tracer, data: bytes) -> set[Place]:
    """The places that an input reaches; raises `Finding` where it fails."""
    try:
        with tracer:
            target.run(data)
    except Exception as error:
        raise Finding(target.name, data) from error
    return tracer.places


def smallest_set(target: Target, inputs: Sequence[bytes]) -> list[bytes]:
    """The inputs, short ones first, without those that reach nothing of their own."""
    tracer = Tracer(target.files)
    seen: set[Place] = set()
    wanted: list[bytes] = []
    for data in sorted(set(inputs), key=lambda data: (len(data), data)):
        places = reached(target, tracer, data)
        if not places <= seen:
            seen |= places
            wanted.append(data)
    return wanted


def shorten(target: Target, data: bytes, parts: Callable[[bytes], list[bytes]]) -> bytes:
    """A shorter input that still fails; `parts` gives those that lack something."""
    tracer = Tracer(target.files)
    while True:
        for shorter in parts(data):
            try:
                reached(target, tracer, shorter)
            except Finding:
                data = shorter
                break
        else:
            return data


# --- The corpus -----------------------------------------------------------------------------------

FOLDER: Final = Path(__file__).resolve().parent / "corpus"


def read_corpus(name: str) -> list[bytes]:
    """What earlier runs kept for a target, in steady order."""
    path = FOLDER / f"{name}.txt"
    if not path.exists():
        return []
    return [bytes.fromhex(line) for line in path.read_text().split()]


def write_corpus(name: str, inputs: Iterable[bytes]) -> None:
    """Keep these: a line of hexadecimal digits each, so that a change of the file can be read."""
    lines = sorted((data.hex() for data in inputs), key=lambda line: (len(line), line))
    (FOLDER / f"{name}.txt").write_text("".join(f"{line}\n" for line in lines))


def digest(inputs: Iterable[bytes]) -> str:
    """A name for a set of inputs."""
    return hashlib.sha1(b"".join(sorted(inputs)), usedforsecurity=False).hexdigest()[:8]
