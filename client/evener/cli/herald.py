"""What a part that runs in this process tells while it starts, for the command to say it aloud.

Rules of this file: a pipe and a thread that ends with the start, so that the part then has its
process for itself.
"""

from __future__ import annotations

import json
import os
import select
from collections.abc import Callable, Generator
from contextlib import contextmanager
from threading import Thread
from typing import Any, Final

Event = dict[str, Any]

# How long somebody who waits is left without a word.
_PATIENCE_S: Final = 2.0


@contextmanager
def heralded(tell: Callable[[Event], bool]) -> Generator[int]:
    """A descriptor for `ready_fd`; `tell` gets each event, and returns whether it was the last.

    It gets an empty one when nothing was told for two seconds after something was.
    """
    reader, writer = os.pipe2(os.O_CLOEXEC)
    thread = Thread(target=_listen, args=(reader, tell), daemon=True)
    thread.start()
    try:
        yield writer
    finally:
        os.close(writer)
        thread.join()


def _listen(reader: int, tell: Callable[[Event], bool]) -> None:
    heard = b""
    patience: float | None = None
    with open(reader, "rb", buffering=0) as pipe:
        while True:
            if not select.select([pipe], [], [], patience)[0]:
                tell({})
                patience = None
                continue
            part = pipe.read(65_536)
            if not part:
                return
            *lines, heard = (heard + part).split(b"\n")
            for line in lines:
                if tell(json.loads(line)):
                    return
            patience = _PATIENCE_S
