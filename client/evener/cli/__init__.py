"""The `evener` command.

Rules of this package: this file and `group.py` are all that `evener --version` and `evener --help`
load, so they import neither zmq nor any command. Each command has a file of its own, loaded when it
is called. Only here do imports look up to the broker's and the workers' packages, and only inside
the functions that start them.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

from evener.version import __version__

__all__ = ["main"]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; `sys.argv` when no arguments are given. Returns the exit code."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    if given == ["--version"]:
        # The most frequent question of scripts, answered before click is loaded.
        sys.stdout.write(f"evener {__version__}\n")
        return 0
    from evener.cli.group import run

    return run(given)
