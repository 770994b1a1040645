"""Converts all PNG files of a folder, several at once: `python convert_images.py FOLDER`.

By ImageMagick if it is installed, or else by the little converter beside this file.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from evener_worker import CommandWorker, ItemPool

HERE = Path(__file__).parent


def imagemagick() -> str | None:
    """The name of ImageMagick's program, if what has that name is ImageMagick."""
    for name in ("magick", "convert"):
        if shutil.which(name):
            told = subprocess.run([name, "-version"], capture_output=True, text=True)
            if told.stdout.startswith("Version: ImageMagick"):
                return name
    return None


def images(folder: Path) -> Iterator[dict[str, str]]:
    """What is to be converted, found one by one."""
    for source in folder.glob("*.png"):
        yield {"source": str(source), "target": str(source.with_suffix(".ppm"))}


def main(folder: Path, program: list[str]) -> int:
    argv = [sys.executable, str(HERE / "converter.py"), *program]
    failed = 0
    with ItemPool(lambda number: CommandWorker(argv, id=number, name="converter")) as pool:
        for outcome in pool.process(images(folder), timeout=60):
            if outcome.ok:
                print("wrote", outcome.result())
            else:
                failed += 1
                print("failed:", outcome.error)
    return 1 if failed else 0


if __name__ == "__main__":
    if len(sys.argv) != 2 or not Path(sys.argv[1]).is_dir():
        sys.exit("usage: python convert_images.py FOLDER (one that exists, with PNG files in it)")
    name = imagemagick()
    program = [name] if name else [sys.executable, str(HERE / "png_ppm.py")]
    sys.exit(main(Path(sys.argv[1]), program))
