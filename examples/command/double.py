"""Doubles numbers: the side of the program. Start it with `run.py python`."""

from __future__ import annotations

import sys

from evener_worker import child


def double(number: float) -> float:
    """What is done with each item."""
    print(f"doubling {number}", file=sys.stderr)
    return 2 * number


if __name__ == "__main__":
    child.serve(double)
