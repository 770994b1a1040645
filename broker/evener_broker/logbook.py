"""The lines that the broker writes for its operator: safe to show, short, and not too many.

Names and texts in them come from peers. Each line is one line, without anything that steers a
terminal; who causes many lines gets a few, and all together no more than a person could read.
"""

from __future__ import annotations

from collections import Counter
from typing import Final

from evener_broker.effects import Level, Log
from evener_broker.rates import Rates
from evener_wire.limits import SECOND_NS

# Longer lines are cut. More: one peer fills the disk sooner. Fewer: file names are cut.
_LINE_CHARS_MAX: Final = 500

# Lines per minute that one peer may cause, and all of them together. What the broker says by itself
# is always written.
_PEER_LINES_MAX: Final = 10
_LINES_MAX: Final = 600
_WINDOW_NS: Final = 60 * SECOND_NS

_ALL: Final = b""


class LogBook:
    """Caller: the broker's outbox. `now_ns` is the time of the step."""

    def __init__(self, counters: Counter[str]) -> None:
        self.now_ns = 0
        self.counters: Final = counters
        self._by_peer = Rates(_PEER_LINES_MAX, _WINDOW_NS)
        self._by_all = Rates(_LINES_MAX, _WINDOW_NS)

    def line(self, level: Level, text: str, about: bytes | None) -> Log | None:
        """A line as it may be written, or None. `about` says who causes it, if a peer does."""
        excess, whose = 0, "about this peer"
        if about is not None:
            excess = self._by_peer.excess(about, self.now_ns)
            if not excess:
                excess, whose = self._by_all.excess(_ALL, self.now_ns), "about peers"
        if excess > 1:
            self.counters["log_lines_dropped"] += 1
            return None
        shown = one_line(text)
        return Log(level, shown if not excess else f"{shown} (more {whose} are left out for now)")


def one_line(text: str) -> str:
    """A text of unknown origin as one line without control characters, of bounded length."""
    cut = text if len(text) <= _LINE_CHARS_MAX else text[: _LINE_CHARS_MAX - 3] + "..."
    if cut.isprintable():
        return cut
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in cut)
