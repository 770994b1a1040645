"""What to say when nobody offers a function. Pure text; decides nothing."""

from __future__ import annotations

import difflib

from evener_broker.lines import Queue
from evener_broker.records import Function
from evener_wire import messages as m


def unknown_function(function: Function, queue: Queue, *, hint: bool = True) -> m.Facts | None:
    """What to tell the client when nobody offers a function; None if somebody may.

    A `hint` at names like it costs a search through all that are known: not for everybody who asks
    for thousands that do not exist.
    """
    if function.by_value or function.agents or not queue.agents:
        return None
    if function.runs:
        return None  # it is only away; one that never ran is most likely a mistake
    slots = sum(agent.slots for agent in queue.agents)
    if slots == 0:
        return None  # agents whose workers are still loading their app offer nothing yet
    if not hint:
        text = f'no worker knows "{function.name}" (evener ls functions)'
        return {"reason": "unknown_function", "text": text, "closest": ()}
    known = sorted({f.name for agent in queue.agents for f in agent.functions})
    closest = tuple(difflib.get_close_matches(function.name, known, n=3, cutoff=0.5))
    likely = f"Closest: {', '.join(closest)}. " if closest else ""
    text = (
        f'no worker knows "{function.name}". {likely}Known on {slots} workers: {len(known)} '
        f"functions (evener ls functions). Did you restart the workers after adding it?"
    )
    counts = {"workers": slots, "functions": len(known)}
    return {"reason": "unknown_function", "text": text, "closest": closest, **counts}
