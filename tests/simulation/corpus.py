"""Seeds that failed once, and what each of them found. All of them hold, and are run again in CI.

Rules of this file: a seed that fails is added here with the change that mends it, and stays. What a
seed draws changes when kinds of faults or of work are added; then it is one seed more. A line says
the choice, and in one sentence what was wrong; seeds that take longer than some seconds are
replayed by hand (`LONG`).
"""

from __future__ import annotations

from typing import Final

from tests.simulation.run import Choice
from tests.simulation.swarm import LATER

# Of faults that came after these seeds: without them they are what they were.
_LATER: Final = frozenset(LATER)

CORPUS: Final[dict[Choice, str]] = {
    Choice(
        10
    ): "checker: a task that an earlier broker had sent was held to an order of first times",
    Choice(
        12, omit=_LATER
    ): "broker: after a restart what runs once went before what agents could still tell of",
    Choice(
        29, omit=_LATER
    ): "broker: values that no client claimed after a restart held their worker for ever",
    Choice(118): "broker: a late agent went on with what a later broker had begun anew elsewhere",
    Choice(
        152
    ): "checker: a task whose dispatch was written and never left was to go before others",
    Choice(
        170
    ): "broker: an attempt that came back after a restart was over, and not in the journal",
    Choice(
        63
    ): "broker: an old attempt that died was begun anew while a later one went on elsewhere",
    Choice(71): "checker: what stood behind claims of an earlier broker was passed over while held",
    Choice(72): "broker: a generator whose values nobody claimed was told as done, and as whole",
    Choice(74): "checker: what a late agent had was called given up before its client claimed it",
    Choice(
        200
    ): "broker: an attempt that came back after a restart was over, and not in the journal",
    Choice(
        393
    ): "checker: values that a reader had, and that were dropped for it, were not dropped",
    Choice(1186): "simulation: nothing was accepted, because the journal still failed at the end",
    Choice(
        1204
    ): "simulation: nothing was accepted, because a sync of 30 s was under way at the end",
    Choice(1302): "simulation: nothing was accepted, because the journal still failed at the end",
}

LONG: Final[dict[Choice, str]] = {
    Choice(
        300002, profile="long"
    ): "simulation: the only client that tried never reads, so nothing came of it",
    Choice(2, profile="days"): "checker: a program that had just begun was to be connected already",
    Choice(
        2007, profile="days"
    ): "checker: an agent whose messages a small buffer did not take was called well",
}
