"""The broker's files on its own host: where local clients find it, and the last epoch used.

The folder is private (0700) and checked before use, because whoever writes there decides to which
broker local clients connect. Files are written whole and renamed, so that no reader sees half of
one.
"""

from __future__ import annotations

import json
import os
import stat
import time
from pathlib import Path

from evener_wire.errors import UsageError
from evener_wire.messages import EPOCH_MAX


def runtime_folder() -> Path:
    """`EVENER_RUNTIME_DIR`, else `evener` in `XDG_RUNTIME_DIR`, else one of this user in /tmp."""
    if chosen := os.environ.get("EVENER_RUNTIME_DIR"):
        return Path(chosen)
    if base := os.environ.get("XDG_RUNTIME_DIR"):
        return Path(base) / "evener"
    return Path("/tmp") / f"evener-{os.getuid()}"


class RuntimeFiles:
    """The files of one broker process. Raises `UsageError` if the folder is not this user's."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._connection = folder / f"broker-{os.getpid()}.json"
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        facts = folder.lstat()
        if not stat.S_ISDIR(facts.st_mode) or facts.st_uid != os.getuid():
            raise UsageError(
                f"{folder} is not a folder of this user: remove it, or set EVENER_RUNTIME_DIR"
            )

    def next_epoch(self) -> int:
        """An epoch larger than any used on this host before, and remembered as used."""
        path = self._folder / "epoch"
        try:
            last = int(path.read_text(encoding="ascii"))
        except (OSError, ValueError):
            last = 0
        epoch = min(max(last + 1, int(time.time())), EPOCH_MAX)
        self._write(path, str(epoch))
        return epoch

    def note_epoch(self, epoch: int) -> None:
        """A journal knows of this epoch, which is larger than what `next_epoch` said."""
        self._write(self._folder / "epoch", str(epoch))

    def roster(self, host: str, port: int) -> Path:
        """Where brokers without a journal on this address note their agents."""
        return self._folder / f"agents-{host.replace('/', '_')}-{port}"

    def publish(self, address: str, epoch: int) -> None:
        """Let local clients find this broker."""
        facts = {
            "schema": 1,
            "address": address,
            "pid": os.getpid(),
            "epoch": epoch,
            "started": int(time.time()),
        }
        self._write(self._connection, json.dumps(facts))

    def remove(self) -> None:
        """This broker is gone."""
        self._connection.unlink(missing_ok=True)

    def _write(self, path: Path, text: str) -> None:
        fresh = path.with_name(f"{path.name}.{os.getpid()}.new")
        descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, 0o600)
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            file.write(text)
        fresh.replace(path)
