"""The file in which a broker without a journal notes its agents for the broker after it.

Rules of this file: a note is written before anything is said to its agent, and never synced: it
has to survive this process, not this host. So the first line names the boot of the host, and after
another one nothing in here counts. Whatever is not as it should be means that nothing is known.
"""

from __future__ import annotations

import contextlib
import logging
import os
from pathlib import Path
from typing import Final

from evener_broker.effects import NoteAgent
from evener_broker.roster import Notes
from evener_wire.limits import AGENTS_MAX, ID_BYTES

_log = logging.getLogger("evener.broker")

_BOOT: Final = Path("/proc/sys/kernel/random/boot_id")
_MAGIC: Final = "evener-agents-1"

# Lines beyond those that count, before the file is written anew. More: a larger file. Fewer: agents
# that come and go cost more.
_SPARE_LINES: Final = 1_000

# What a file of ours may have: more than all agents, each come and gone.
_FILE_BYTES_MAX: Final = (2 * AGENTS_MAX + 2 * _SPARE_LINES) * (2 * ID_BYTES + 2)


class RosterFile:
    """Caller: the shell. `before` is what an earlier broker noted, if that can be relied upon."""

    def __init__(self, path: Path, broker: bytes) -> None:
        self._path = path
        self._broker = broker
        boot = _boot()
        self.before: Final = _read(path, boot)
        self._header = f"{_MAGIC} {boot} {broker.hex()}\n"
        self._agents: dict[bytes, None] = dict.fromkeys(self.before.agents) if self.before else {}
        self._lines = 0
        self._descriptor = -1
        self._begin()

    def note(self, effect: NoteAgent) -> None:
        """An agent came, or is gone for good."""
        if effect.gone:
            self._agents.pop(effect.instance, None)
        else:
            self._agents[effect.instance] = None
        if self._descriptor < 0:
            return
        self._lines += 1
        try:
            if self._lines > 2 * len(self._agents) + _SPARE_LINES:
                self._begin()
                return
            line = f"{'-' if effect.gone else '+'}{effect.instance.hex()}\n".encode()
            if os.write(self._descriptor, line) != len(line):
                raise OSError("it was written in part")
        except OSError as error:
            self._give_up(error)

    def close(self) -> None:
        """Nothing is noted any more; what is there stays for the next broker."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    def _begin(self) -> None:
        """Write the file whole, beside the one there is, and put it in its place."""
        self.close()
        fresh = self._path.with_name(f"{self._path.name}.{os.getpid()}.new")
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC
        descriptor = os.open(fresh, flags, 0o600)
        try:
            text = self._header + "".join(f"+{agent.hex()}\n" for agent in self._agents)
            whole = text.encode()
            if os.write(descriptor, whole) != len(whole):
                raise OSError("it was written in part")
            fresh.replace(self._path)
        except OSError:
            os.close(descriptor)
            raise
        self._descriptor, self._lines = descriptor, len(self._agents)

    def _give_up(self, error: OSError) -> None:
        """Half a roster is worse than none: without one the next broker waits for longer."""
        text = "cannot note agents in %s: %s; the next broker here waits for all of them"
        _log.warning(text, self._path, error)
        with contextlib.suppress(OSError):
            self._path.unlink()
        with contextlib.suppress(OSError):
            os.ftruncate(self._descriptor, 0)
        self.close()


def _boot() -> str:
    """Which boot of this host this is."""
    return _BOOT.read_text(encoding="ascii").strip()


def _read(path: Path, boot: str) -> Notes | None:
    try:
        with path.open("rb") as file:
            data = file.read(_FILE_BYTES_MAX + 1)
    except OSError:
        return None
    # A line that is not whole was being written when its broker died: nothing followed from it.
    lines = data.split(b"\n")[:-1]
    if not lines or len(data) > _FILE_BYTES_MAX:
        return None
    agents: dict[bytes, None] = {}
    try:
        magic, of_boot, broker = lines[0].decode("ascii").split(" ")
        if (magic, of_boot) != (_MAGIC, boot):
            return None
        for line in lines[1:]:
            instance = _id(line[1:].decode("ascii"))
            if line[:1] == b"+":
                agents[instance] = None
            elif line[:1] == b"-":
                agents.pop(instance, None)
            else:
                return None
        return Notes(_id(broker), tuple(agents))
    except ValueError:
        return None


def _id(text: str) -> bytes:
    found = bytes.fromhex(text)
    if len(found) != ID_BYTES:
        raise ValueError(text)
    return found
