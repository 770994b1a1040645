"""What the demo found: sums over files, from whichever processes the parts came.

Rules of this file: arithmetic only.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

from evener.demo.corpus import Source

_DIFFERENCES_MAX = 10


@dataclass(slots=True)
class Totals:
    """Counted so far. Equal totals are equal in every number and every name."""

    files: int = 0
    bytes: int = 0
    lines: int = 0
    identifiers: Counter[str] = field(default_factory=Counter)
    faults: dict[str, str] = field(default_factory=dict)

    def add(self, source: Source, indexed: dict[str, Any]) -> None:
        """Count what `index` returned for one file."""
        self.files += 1
        self.bytes += len(source.content)
        self.lines += indexed["lines"]
        self.identifiers.update(indexed["identifiers"])
        fault = source.fault or indexed["fault"]
        if fault:
            self.faults[source.name] = fault

    def differences(self, other: Totals) -> list[str]:
        """What is not the same here and there, one line each; the first few of them."""
        return list(islice(self._compare(other), _DIFFERENCES_MAX))

    def _compare(self, other: Totals) -> Iterator[str]:
        for name in ("files", "bytes", "lines"):
            mine, theirs = getattr(self, name), getattr(other, name)
            if mine != theirs:
                yield f"{name}: {mine:,} and {theirs:,}"
        for name in sorted(self.identifiers.keys() | other.identifiers.keys()):
            if self.identifiers[name] != other.identifiers[name]:
                yield f"{name}: {self.identifiers[name]:,} and {other.identifiers[name]:,}"
        for name in sorted(self.faults.keys() | other.faults.keys()):
            if self.faults.get(name) != other.faults.get(name):
                yield f"{name}: {self.faults.get(name)!r} and {other.faults.get(name)!r}"
