"""Doubles numbers by a pool of programs: `python run.py python|node|sh`."""

from __future__ import annotations

import sys
from pathlib import Path

from evener_worker import CommandWorker, ItemPool

HERE = Path(__file__).parent
PROGRAMS = {
    "python": [sys.executable, str(HERE / "double.py")],
    "node": ["node", str(HERE / "double.js")],
    "sh": ["sh", str(HERE / "double.sh")],
}


def main(language: str) -> None:
    argv = PROGRAMS[language]
    with ItemPool(lambda number: CommandWorker(argv, id=number), size=2) as pool:
        for outcome in pool.process(range(1, 11), ordered=True):
            print(outcome.item, outcome.result())


if __name__ == "__main__":
    language = sys.argv[1] if len(sys.argv) > 1 else "python"
    if language not in PROGRAMS:
        sys.exit(f"usage: python run.py {'|'.join(PROGRAMS)}")
    main(language)
