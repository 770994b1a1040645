"""How far a task says it is, as whoever submitted it sees it."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["Progress"]


@dataclass(frozen=True, slots=True)
class Progress:
    """What a running task said last with `evener.progress(done, total, note)`."""

    done: float
    total: float | None = None
    """None: the task does not know either."""
    note: str = ""
    attempt: int = 1
    """Which try it is of, from 1, since the broker started. Another one begins anew."""

    @property
    def fraction(self) -> float | None:
        """`done` of `total`, from 0.0 to 1.0; None without a total."""
        if self.total is None:
            return None
        return min(1.0, self.done / self.total) if self.total else 1.0

    def __str__(self) -> str:
        """`7 of 20: page 7`, with nothing in it that would steer a terminal."""
        text = f"{self.done:,}" + ("" if self.total is None else f" of {self.total:,}")
        note = "".join(char if char.isprintable() else "?" for char in self.note)
        return f"{text}: {note}" if note else text
