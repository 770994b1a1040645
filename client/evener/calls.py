"""What a caller hands to `submit` or `map`, made into what a task needs: name, payload, options.

Rules of this file: no connection, no state. Three kinds of things can be called: a registered
function, a name that workers know, and any other function, which travels by value.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, cast

from evener.errors import BadArguments, UsageError
from evener.function import Function, signature_of
from evener.options import misplaced
from evener.payload import encode_call
from evener.shipping import SHIPPED_PREFIX, ship, shipped_name
from evener_wire.checks import is_name
from evener_wire.messages import Options, Payload


class Target(NamedTuple):
    """What is called. `code`: the function itself, if workers do not know it by its name."""

    name: str
    options: Options | None
    code: bytes | None
    function: Function[Any, Any] | None


def target_of(function: object, by_value: Callable[[Function[Any, Any]], bool]) -> Target:
    """Raises `UsageError` for what cannot be called, `NotSendable` for what cannot be shipped."""
    if isinstance(function, Function):
        known: Function[Any, Any] = cast(Any, function)
        if not by_value(known):
            return Target(known.name, known.task_options, None, known)
        name = f"{SHIPPED_PREFIX}{known.name}"
        while not is_name(name):  # too long with its prefix
            name = name[:-1]
        return Target(name, known.task_options, ship(known.function), known)
    if isinstance(function, str):
        if not is_name(function):
            raise UsageError(f"{function!r} is not the name of a function")
        return Target(function, None, None, None)
    if not callable(function):
        raise UsageError(
            f"cannot submit {function!r}: give a function, or the name of one that workers know"
        )
    return Target(shipped_name(function), None, ship(function), None)


def check_plain(function: object, args: Sequence[Any], kwargs: Mapping[str, Any]) -> None:
    """Raises `BadArguments` where a function that is sent along got options for arguments.

    Other calls that do not fit are found by the worker, as Python finds them.
    """
    if not callable(function) or isinstance(function, Function):
        return
    signature = signature_of(function)
    name = getattr(function, "__name__", "function")
    if signature is not None:
        hint = misplaced(kwargs, signature.parameters, f"client.function({name}, {{}}).submit(...)")
        try:
            _ = hint and signature.bind(*args, **kwargs)
        except TypeError as error:
            raise BadArguments(name, f"{error}, signature: {signature}{hint}") from None


def encode(
    target: Target, args: Sequence[Any], kwargs: Mapping[str, Any], trusted: bool
) -> Payload:
    """The payload of one call. Raises `BadArguments`, `NotSendable`, `PayloadTooLarge`."""
    function = target.function
    if function is None:
        return encode_call(target.name, args, kwargs, trusted=trusted, code=target.code)
    function.check(tuple(args), kwargs)
    return encode_call(
        function.name,
        args,
        kwargs,
        trusted=trusted,
        code=target.code,
        parameters=function.parameters,
    )
