"""Items, messages and answers as payloads, and the class of a worker as bytes.

Rules of this file: what cannot travel is said in a sentence that names it and the remedy.
"""

from __future__ import annotations

from typing import Any

from evener.errors import NotSendable, PayloadTooLarge
from evener.failure import decode_failure
from evener.payload import decode_value, encode_value
from evener.pickling import dump
from evener_wire.messages import DONE, Buffer, Payload

_OF_RESULT = "the result of "


def encode(value: object, what: str) -> Payload:
    """The payload of a value. Raises `NotSendable` and `PayloadTooLarge`, which name it `what`."""
    try:
        return encode_value(value, function=what)
    except NotSendable as error:
        named = error.what.removeprefix(_OF_RESULT)
        raise NotSendable(named, error.type_name, error.reason) from error.__cause__
    except PayloadTooLarge as error:
        named = error.what.replace(_OF_RESULT, "")
        raise PayloadTooLarge(named, error.nbytes, error.nbytes_max) from None


def value_of(outcome: int, payload: Payload) -> Any:
    """The value of an answer. Raises what was raised there."""
    if outcome == DONE:
        return decode_value(payload, True)
    raise decode_failure(payload, trusted=True)


def ship(factory: Any) -> list[Buffer]:
    """The bytes of a worker class or factory. Raises `NotSendable`.

    By its name where its module can be imported; what `__main__` defines goes by value, so that a
    script needs no `if __name__ == "__main__"`.
    """
    try:
        stream, buffers = dump(factory)
    except Exception as error:
        name = getattr(factory, "__qualname__", type(factory).__qualname__)
        reason = (
            f"or something that it uses cannot be copied into another process"
            f" ({type(error).__name__}: {error}). Make such things in start(), or put the class"
            " into a module of its own and import it"
        )
        raise NotSendable(f"{name} to the workers", name, reason[:1_000]) from error
    return [stream, *buffers]
