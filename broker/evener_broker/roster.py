"""Which agents may run what clients submit again, when no journal tells: an earlier broker's notes.

A broker without a journal notes each agent before it says anything to it, on its own host
(`roster_file.py`). The next one there need not wait for the whole recovery time: once all of those
told what they hold, nobody else can run anything that the earlier broker gave out. Rules of this
file: no I/O, no clock; who came before is known by the id of its process, which its clients name.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Notes:
    """What an earlier broker noted: its own id, and the instances of agents that may hold work.

    More agents than there are cost time; one less, and what it runs may begin again elsewhere.
    """

    broker: bytes
    agents: Collection[bytes]


class Roster:
    """Caller: recovery. `notes` None: nothing is known, so everybody waits for the whole time."""

    def __init__(self, notes: Notes | None) -> None:
        self._broker = b"" if notes is None else notes.broker
        self.expected: set[bytes] = set() if notes is None else set(notes.agents)

    def told(self, instance: bytes) -> bool:
        """An agent told what it holds: whether it is the last one that was missing."""
        if instance not in self.expected:
            return False
        self.expected.remove(instance)
        return not self.expected

    def vouches_for(self, last_broker: bytes) -> bool:
        """Whether what clients of that broker submit again runs nowhere, unless somebody told."""
        return not self.expected and last_broker == self._broker != b""

    def close(self) -> Collection[bytes]:
        """The recovery time is over: nobody is waited for. Returns who did not come."""
        missing, self.expected = self.expected, set()
        if missing:
            self._broker = b""
        return missing
