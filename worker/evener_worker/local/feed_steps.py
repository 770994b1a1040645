"""What happens to a pool that is fed from a source, and what is to be done about it.

Rules of this file: data. `life` numbers the workers that a station had one after the other, `run`
the sources that the pool had, so that what comes too late is told from what counts.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from evener_worker.local.outcome import Outcome

# --- Events ---------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Begin:
    """A source is to be worked off. `ahead`: how many outcomes may wait for who takes them."""

    ordered: bool = False
    ahead: int = 0
    timeout_ns: int | None = None
    retries: int = 0


@dataclass(frozen=True, slots=True)
class Pulled:
    """The source gave an item."""

    run: int
    item: Any


@dataclass(frozen=True, slots=True)
class SourceEnded:
    """The source will give no more: it is at its end, or raised."""

    run: int
    error: BaseException | None = None


@dataclass(frozen=True, slots=True)
class Ready:
    """A worker can execute."""

    station: int
    life: int


@dataclass(frozen=True, slots=True)
class StartFailed:
    """A worker could not be made ready."""

    station: int
    life: int
    error: BaseException


@dataclass(frozen=True, slots=True)
class Executed:
    """A worker has a result. `active`: whether it can go on."""

    station: int
    life: int
    value: Any
    active: bool = True


@dataclass(frozen=True, slots=True)
class Raised:
    """A worker raised. `active`: whether it can go on; `ran`: whether it had begun the item."""

    station: int
    life: int
    error: BaseException
    active: bool = True
    ran: bool = True


@dataclass(frozen=True, slots=True)
class Destroyed:
    """Nothing is left of a worker."""

    station: int
    life: int


@dataclass(frozen=True, slots=True)
class Taken:
    """An outcome was taken by who iterates."""


@dataclass(frozen=True, slots=True)
class Stop:
    """Who iterates wants no more."""


@dataclass(frozen=True, slots=True)
class Shutdown:
    """Nobody wants anything any more."""


@dataclass(frozen=True, slots=True)
class Tick:
    """Time has passed."""


Event = (
    Begin
    | Pulled
    | SourceEnded
    | Ready
    | StartFailed
    | Executed
    | Raised
    | Destroyed
    | Taken
    | Stop
    | Shutdown
    | Tick
)

# --- Effects --------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Start:
    """Make a worker and have it say that it is ready."""

    station: int
    life: int


@dataclass(frozen=True, slots=True)
class Pull:
    """Take one item from the source."""

    run: int


@dataclass(frozen=True, slots=True)
class GiveBack:
    """An item was pulled that nobody will begin."""

    run: int
    item: Any


@dataclass(frozen=True, slots=True)
class Execute:
    """Give a worker an item."""

    station: int
    life: int
    item: Any


@dataclass(frozen=True, slots=True)
class Destroy:
    """End a worker."""

    station: int
    life: int


@dataclass(frozen=True, slots=True)
class Deliver:
    """An outcome for who iterates."""

    outcome: Outcome[Any, Any]


@dataclass(frozen=True, slots=True)
class StopPulling:
    """The source is not needed any more."""

    run: int


@dataclass(frozen=True, slots=True)
class Finish:
    """There will be no more outcomes."""

    error: BaseException | None = None


@dataclass(frozen=True, slots=True)
class Closed:
    """All workers are gone, for good."""


Effect = Start | Pull | GiveBack | Execute | Destroy | Deliver | StopPulling | Finish | Closed
