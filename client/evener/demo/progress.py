"""The line that shows how far the demo is, on stderr.

Rules of this file: on a terminal one line that is drawn anew, elsewhere a line each quarter. The
caller says when; nothing here knows what is counted.
"""

from __future__ import annotations

import time
from typing import Final, TextIO

_DRAW_INTERVAL_S: Final = 0.1
_QUARTERS: Final = 4


class Progress:
    """How many of `total` are done, and how fast."""

    def __init__(self, what: str, total: int, stream: TextIO) -> None:
        self.what: Final = what
        self.total: Final = total
        self._stream: Final = stream
        self._live: Final = stream.isatty()
        self._start: Final = time.monotonic()
        self._drawn_at = 0.0
        self._drawn = False
        self._quarter = 0

    def seconds(self) -> float:
        """Since this began."""
        return time.monotonic() - self._start

    def show(self, done: int) -> None:
        """Draw the line if it is time to. Cheap: call it for every step."""
        if self._live:
            now = time.monotonic()
            if now - self._drawn_at >= _DRAW_INTERVAL_S:
                self._drawn_at = now
                self._draw(done)
        elif done * _QUARTERS // max(self.total, 1) > self._quarter:
            self._quarter = done * _QUARTERS // self.total
            self._stream.write(f"{self._line(done)}\n")
            self._stream.flush()

    def clear(self) -> None:
        """Take the line away, so that other text can come; the next `show` draws it below."""
        if self._drawn:
            self._stream.write("\r\x1b[K")
            self._stream.flush()
            self._drawn = False
            self._drawn_at = 0.0

    def _draw(self, done: int) -> None:
        self._stream.write(f"\r\x1b[K{self._line(done)}")
        self._stream.flush()
        self._drawn = True

    def _line(self, done: int) -> str:
        rate = done / max(self.seconds(), 1e-9)
        return f"  {self.what}  {done:,} of {self.total:,} files, {rate:,.0f}/s"
