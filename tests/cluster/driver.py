"""A client in a container: submits known work, waits for every result, and tells how it went.

    driver.py TASKS LINES

Each task indexes a source of its own, of this many lines, so its result is known beforehand. Tells
in JSON lines on stdout: `submitted`, then `done` for each task in order, then `end` with the
numbers of the tasks whose results are wrong. Rules of this file: it is given to Python as text, and
imports only what is in the image.
"""

from __future__ import annotations

import json
import sys

import evener
from evener.demo.app import index

_WAIT_S = 240


def main(tasks: int, lines: int) -> int:
    """Run the work; the exit code is 0 when every task has its own right result."""
    wrong = {}
    with evener.Client() as client:
        futures = [client.submit(index, source(number, lines)) for number in range(tasks)]
        say(event="submitted", tasks=tasks)
        for number, future in enumerate(futures):
            try:
                found = future.result(timeout=_WAIT_S)["identifiers"]
                right = found == {f"task_{number}": 1, "x": lines, "y": lines}
            except Exception as error:  # whatever it is, the test shall show it
                right, found = False, repr(error)
            if not right:
                wrong[number] = found
            say(event="done", number=number)
    say(event="end", wrong=wrong)
    return 1 if wrong else 0


def source(number: int, lines: int) -> bytes:
    """Python with one name that no other task has."""
    return f"task_{number} = 1\n".encode() + b"x = y\n" * lines


def say(**facts: object) -> None:
    """One line for the test that reads along."""
    print(json.dumps(facts), flush=True)


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1]), int(sys.argv[2])))
