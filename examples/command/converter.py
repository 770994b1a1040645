"""Converts images by an external program, started as `python converter.py PROGRAM...`.

Each item names two files; the external program is run with them, and what it says when it fails
becomes the error of the item.
"""

from __future__ import annotations

import subprocess
import sys

from evener_worker import child


def convert(files: dict[str, str]) -> str:
    """Run the external program for one image."""
    done = subprocess.run(
        [*sys.argv[1:], files["source"], files["target"]], capture_output=True, text=True
    )
    if done.returncode != 0:
        raise RuntimeError(done.stderr.strip() or f"exit code {done.returncode}")
    return files["target"]


if __name__ == "__main__":
    child.serve(convert)
