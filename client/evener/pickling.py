"""Pickle, for what msgpack cannot carry: large buffers beside the stream, blame when it fails.

Rules of this file: no decision about trust is made here; `payload.py` asks first. The C pickler of
the standard library does the work, and cloudpickle only where it has to: for what `__main__`
defines (a worker has another `__main__`), for lambdas and for local functions and classes.
"""

from __future__ import annotations

import io
import pickle
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence, Set
from functools import cache
from itertools import islice
from typing import Any, cast

from evener_wire.errors import PeerError
from evener_wire.limits import INLINE_BYTES_MAX
from evener_wire.messages import Buffer

PICKLE_FIRST_BYTE = 0x80
"""Each pickle of protocol 2 and later begins with it; no msgpack array does."""

# Buffers of one payload that travel as frames of their own; what comes after goes into the stream.
# Larger: more of a message's frames (1 024) for one payload. Smaller: more copies.
BUFFERS_MAX = 256

_FILE: type = io.TextIOWrapper

# How deep the search goes for the part of an argument that cannot be pickled.
_BLAME_DEPTH_MAX = 8
_BLAME_PARTS_MAX = 10_000


def dump(value: object) -> tuple[bytes, list[Buffer]]:
    """The pickle of a value, and its large buffers, not copied.

    Raises whatever the pickling of a user's object raises.
    """
    buffers: list[Buffer] = []

    def keep_in_stream(buffer: pickle.PickleBuffer) -> bool:
        try:
            raw = buffer.raw()
        except BufferError:  # not contiguous: only the pickler can copy it
            return True
        if raw.nbytes < INLINE_BYTES_MAX or len(buffers) == BUFFERS_MAX:
            return True
        buffers.append(raw)
        return False

    try:
        stream = pickle.dumps(value, protocol=5, buffer_callback=keep_in_stream)
        # A reference to a module by name holds the name as it is. More hits than references only
        # cost time.
        if b"__main__" not in stream:
            return stream, buffers
    except Exception as error:
        if isinstance(error, RecursionError):
            raise
    buffers.clear()
    return dump_by_value(value, keep_in_stream), buffers


def dump_by_value(
    value: object, buffer_callback: Callable[[pickle.PickleBuffer], Any] | None = None
) -> bytes:
    """The pickle of a value with the functions and classes of `__main__` inside of it."""
    file = io.BytesIO()
    _pickler_by_value()(file, protocol=5, buffer_callback=buffer_callback).dump(value)
    return file.getvalue()


@cache
def _pickler_by_value() -> type[pickle.Pickler]:
    import cloudpickle  # here, because it costs 20 ms and most programs never need it

    class ByValue(cloudpickle.Pickler):
        def reducer_override(self, obj: object) -> Any:
            # Registered functions pickle by reference; in `__main__` there is nothing to refer to.
            if type(obj) is _FILE and obj not in (sys.stdout, sys.stderr):
                # cloudpickle would read it to its end and go on with a copy in memory.
                raise TypeError(f"cannot pickle an open file: {obj!r}")
            reduce = getattr(type(obj), "reduce_by_value", None)
            return super().reducer_override(obj) if reduce is None else reduce(obj)

    return ByValue


def load(stream: Buffer, buffers: Sequence[Buffer] = ()) -> Any:
    """The value of a pickle from a trusted peer. Raises `PeerError` where that fails."""
    try:
        return pickle.loads(stream, buffers=buffers)
    except Exception as error:
        raise PeerError(f"cannot unpickle: {type(error).__name__}: {error}"[:2_000]) from error


def type_label(value: object) -> str:
    """How a message names the type of a value: `sqlite3.Connection`, `int`."""
    kind = type(value)
    return kind.__qualname__ if kind.__module__ == "builtins" else _label(kind)


def _label(kind: type) -> str:
    return f"{kind.__module__}.{kind.__qualname__}"


def refusal(value: object) -> str | None:
    """Why a value cannot be pickled; None if it can."""
    try:
        dump(value)
    except RecursionError:
        return "is nested too deep to be pickled"
    except Exception as error:
        text = str(error).strip().splitlines()
        # Python's own texts only repeat the type, which the message names already.
        if not text or text[0].startswith(("cannot pickle", "Can't pickle", "Can't get")):
            return "is not picklable"
        return f"is not picklable ({type(error).__name__}: {text[0][:200]})"
    return None


def blame(
    value: object, refusal: Callable[[object], str | None] = refusal
) -> tuple[str, object, str]:
    """The innermost part of a value that is refused: the way to it, itself, and why."""
    path, reason = "", refusal(value)
    for _ in range(_BLAME_DEPTH_MAX):
        for step, part in islice(_parts(value), _BLAME_PARTS_MAX):
            if (below := refusal(part)) is not None:
                path, value, reason = path + step, part, below
                break
        else:
            break
    return path, value, reason or "is not picklable"


def _parts(value: object) -> Iterator[tuple[str, object]]:
    """The parts of a container or plain object, each with how Python would write the way to it."""
    if isinstance(value, Mapping):
        mapping = cast("Mapping[object, object]", value)
        yield from ((f"[{_short(key)}]", part) for key, part in mapping.items())
    elif isinstance(value, (list, tuple)):
        listed = cast("Sequence[object]", value)
        yield from ((f"[{index}]", part) for index, part in enumerate(listed))
    elif isinstance(value, (set, frozenset)):
        yield from (("", part) for part in cast("Set[object]", value))
    else:
        attributes: dict[str, object] = getattr(value, "__dict__", {})
        yield from ((f".{name}", part) for name, part in attributes.items())


def _short(key: object) -> str:
    text = repr(key)
    return text if len(text) <= 40 else text[:37] + "..."
