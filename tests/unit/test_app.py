"""Apps and functions: names, local calls, options, checks at submit, and who gets the call."""

from __future__ import annotations

import asyncio
import inspect
import math
import pickle
import subprocess
import sys
from collections.abc import Iterator
from functools import partial
from typing import Any

import cloudpickle
import pytest

import evener
from evener import errors
from evener import function as function_module
from evener.app import App
from evener.errors import BadArguments, UnknownFunction, UsageError
from evener.function import AsyncFunction, Function

app = App("tested")


@app.task
def add(a: int, b: int = 2, *, scale: int = 1) -> int:
    """Adds."""
    return (a + b) * scale


@app.task(timeout=3, retries=2)
async def fetch(address: str) -> bytes:
    return address.encode()


def test_functions_stay_callable_and_keep_their_looks() -> None:
    assert add(1, 2) == 3
    assert asyncio.run(fetch("x")) == b"x"
    assert type(add) is Function
    assert type(fetch) is AsyncFunction
    assert add.__name__ == "add"
    assert add.__doc__ == "Adds."
    assert repr(add) == "<Function tested.add>"
    assert inspect.signature(add) == add.signature == inspect.signature(add.function)
    assert add.parameters == ("a", "b")


def test_names_and_registered_options() -> None:
    assert [*app.functions] == ["tested.add", "tested.fetch"]
    assert add.name == "tested.add"
    assert add.task_options is None
    assert fetch.task_options is not None
    assert (fetch.task_options.timeout_ms, fetch.task_options.retries) == (3_000, 2)
    assert app.callables() == {"tested.add": add.function, "tested.fetch": fetch.function}
    assert app.offered() == [("tested.add", None), ("tested.fetch", fetch.task_options)]
    assert repr(app) == "<App tested, 2 functions>"
    assert app.graces() == {}


def test_a_grace_belongs_to_a_function() -> None:
    with_graces = App("graces")
    with_graces.task(grace="1.5s")(add.function)
    with_graces.task(fetch, grace=0)
    assert with_graces.graces() == {"graces.add": 1_500, "graces.fetch": 0}
    with pytest.raises(UsageError, match="grace='soon' is not a duration"):
        with_graces.task(add.function, name="graces.other", grace="soon")
    with pytest.raises(
        UsageError, match=r"grace belongs to a function: @app\.task\(grace=\.\.\.\)"
    ):
        add.options(grace=1)  # type: ignore[call-arg]


def test_functions_of_other_modules() -> None:
    other = App("other")
    root = other.task(math.sqrt)
    assert root.name == "other.sqrt"
    assert root(9.0) == 3.0
    again = other.task(add, name="sums.add", queue="slow")
    assert again.name == "sums.add"
    assert again.function is add.function
    with pytest.raises(UsageError, match="has no name of its own"):
        other.task(partial(math.pow, 2))
    assert other.task(partial(math.pow, 2), name="other.pow2")(3) == 8
    with pytest.raises(UsageError, match="has no name of its own"):
        other.task(lambda: 0)
    with pytest.raises(UsageError, match="takes a function, not 7"):
        other.task(7)  # type: ignore[call-overload]


def test_a_name_is_registered_once() -> None:
    fresh = App("fresh")

    def job() -> None: ...

    fresh.task(job)
    first = job

    def job() -> None: ...  # type: ignore[no-redef]

    with pytest.raises(UsageError) as caught:
        fresh.task(job)
    text = str(caught.value)
    assert '"fresh.job" is registered twice' in text
    for function in (first, job):
        assert f"test_app.py:{function.__code__.co_firstlineno}" in text


def test_a_definition_may_be_entered_again_at_a_prompt(monkeypatch: pytest.MonkeyPatch) -> None:
    import __main__

    monkeypatch.delattr(__main__, "__file__", raising=False)
    fresh = App("fresh")
    for result in (1, 2):
        scope: dict[str, Any] = {"__name__": "__main__"}
        exec(f"def job(): return {result}", scope)
        fresh.task(scope["job"])
    assert fresh.functions["fresh.job"]() == 2


@pytest.mark.parametrize("name", ["", "a b", "~a", "x" * 129, "a\n", 7, None])
def test_bad_names(name: Any) -> None:
    with pytest.raises(UsageError, match="not a name"):
        App(name)
    if name is not None and name != 7:
        with pytest.raises(UsageError, match="not a name"):
            App("fresh").task(math.sqrt, name=name)


def test_bad_options_are_refused_where_they_are_written() -> None:
    with pytest.raises(UsageError, match="priority=11"):
        app.task(priority=11)
    with pytest.raises(UsageError, match='unknown option "retrys"'):
        app.task(retrys=1)  # type: ignore[call-overload]


def test_options_give_a_copy() -> None:
    copy = fetch.options(retries=0, queue="slow")
    assert copy is not fetch
    assert type(copy) is AsyncFunction
    assert copy.name == fetch.name
    assert copy.task_options is not None
    assert (
        copy.task_options._asdict().items()
        >= {
            "timeout_ms": 3_000,
            "retries": 0,
            "queue": "slow",
        }.items()
    )
    assert fetch.task_options is not None
    assert fetch.task_options.retries == 2


# --- The check at submit --------------------------------------------------------------------------


def shapes() -> Iterator[Any]:
    def none() -> None: ...
    def two(a: int, b: int) -> None: ...
    def optional(a: int, b: int = 0) -> None: ...
    def positional(a: int, b: int = 0, /, c: int = 0) -> None: ...
    def keyword(a: int = 0, *, k: int, m: int = 0) -> None: ...
    def several(a: int, *rest: int, k: int = 0) -> None: ...
    def anything(*args: int, **kwargs: int) -> None: ...
    def mixed(a: int, /, b: int, *rest: int, k: int, **more: int) -> None: ...

    yield from (none, two, optional, positional, keyword, several, anything, mixed)


@pytest.mark.parametrize("plain", [*shapes()], ids=lambda plain: plain.__name__)
def test_the_check_agrees_with_python(plain: Any) -> None:
    function = App("shapes").task(plain)
    names = ["a", "b", "c", "k", "m", "z"]
    for count in range(4):
        for chosen in range(2 ** len(names)):
            kwargs = {name: 0 for bit, name in enumerate(names) if chosen >> bit & 1}
            args = (0,) * count
            try:
                plain(*args, **kwargs)
            except TypeError:
                with pytest.raises(BadArguments):
                    function.check(args, kwargs)
            else:
                function.check(args, kwargs)


def test_a_bad_call_is_told_with_the_signature() -> None:
    with pytest.raises(TypeError) as caught:
        add.check((), {"b": 1})
    assert isinstance(caught.value, UsageError)
    text = "tested.add() missing a required argument: 'a', signature: "
    assert str(caught.value).startswith(text + "(a: ")


def test_a_function_without_signature_is_not_checked() -> None:
    assert App("x").task(print).signature is not None
    unknown = App("x").task(type)
    assert unknown.signature is None
    unknown.check((1, 2, 3, 4), {"any": 1})


# --- Who gets the call ----------------------------------------------------------------------------


class FakeClient:
    def submit(self, *args: Any, **kwargs: Any) -> Any:
        return "submit", args, kwargs

    def map(self, *args: Any, **kwargs: Any) -> Any:
        return "map", args, kwargs


def test_submit_and_map_go_to_the_current_client(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(function_module, "_client_finder", FakeClient)
    submitted: object = add.submit(1, b=2)
    assert submitted == ("submit", (add, 1), {"b": 2})
    mapped: object = add.map([1, 2], [3, 4], chunk=3)
    assert mapped == ("map", (add, [1, 2], [3, 4]), {"chunk": 3})


# --- Pickles --------------------------------------------------------------------------------------


@pytest.mark.parametrize("pickler", [pickle, cloudpickle])
def test_functions_pickle_by_reference(pickler: Any) -> None:
    assert pickle.loads(pickler.dumps(add)) is add
    copy = pickle.loads(pickler.dumps(fetch.options(retries=9)))
    assert copy.task_options.retries == 9
    assert copy.function is fetch.function


def test_a_function_that_is_not_here_is_told_by_name() -> None:
    gone = App("gone")
    data = pickle.dumps(gone.task(math.sqrt))
    with_other_name = data.replace(b"gone.sqrt", b"gone.sqxt")
    assert app.module == __name__
    with pytest.raises(UnknownFunction, match=r'no worker knows "gone\.sqxt"'):
        pickle.loads(with_other_name)


# --- The package ----------------------------------------------------------------------------------


def test_importing_what_workers_need_does_not_load_zmq() -> None:
    code = (
        "import sys, evener, evener.app, evener.execution, evener.loading\n"
        "heavy = {'zmq', 'asyncio', 'cloudpickle', 'evener.client'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
        "assert 'App' in dir(evener) and evener.App.__name__ == 'App'\n"
        "print(evener.__version__)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == evener.__version__ == "0.1.0"


def test_every_error_is_exported_and_pickles() -> None:
    assert set(errors.__all__) <= set(evener.__all__)
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = evener.nothing
    made = [
        errors.RemoteError("x.Y", "boom", "trace"),
        errors.TaskCancelled("f[7]"),
        errors.TaskTimeout("run", 1.5, "f[7]"),
        errors.TaskLost("poison", "f[7]", {"worker": "n:1", "signal": 11, "starts": 3}),
        errors.TaskRejected("code", "text"),
        errors.UnknownFunction("demo.ad", ["demo.add"], 4, 3),
        errors.QueueFull("full"),
        errors.BrokerUnreachable("tcp://h:1", "refused"),
        errors.BrokerRefused("auth", "no key", "tcp://h:1"),
        errors.ClientClosed(),
        errors.BadArguments("f", "missing"),
        errors.NotSendable("x", "y.Z", "is not picklable"),
        errors.NotLoadable("x", "no module", "n:1"),
        errors.PayloadTooLarge("x", 5, 4),
        errors.LoadError("cannot", "trace"),
    ]
    for error in made:
        assert isinstance(error, evener.EvenerError)
        error.add_note("kept")
        back = pickle.loads(pickle.dumps(error))
        assert type(back) is type(error)
        assert str(back) == str(error)
        assert back.__dict__ == error.__dict__


def test_texts_of_losses() -> None:
    facts = {
        "worker": "node-7:3",
        "signal": 9,
        "exit_code": None,
        "rss_bytes": int(3.9 * 2**30),
        "limit_bytes": 4 * 2**30,
        "lines": ("loading", "\x1b[31mstill loading"),
        "starts": 3,
    }
    assert str(errors.TaskLost("poison", "demo.load[7f3a]", facts)) == (
        "worker node-7:3 died (SIGKILL, likely out of memory: RSS 3.9 of 4.0 GiB) while running "
        "demo.load[7f3a]; started 3 times (poison)\n"
        "its last output:\n  loading\n  \\x1b[31mstill loading"
    )
    exited = errors.TaskLost("poison", "f[7]", {"worker": "n:1", "exit_code": 3, "starts": 1})
    assert (
        str(exited) == "worker n:1 died (exit code 3) while running f[7]; started 1 time (poison)"
    )
    assert str(errors.TaskLost("unknown", "f[7]")) == "f[7] is lost: unknown"
    text = "its worker died, and it may run only once"
    assert str(errors.TaskLost("unknown", "f[7]", {"text": text})) == f"f[7] is lost: {text}"


def test_texts_of_the_unknown_and_the_late() -> None:
    assert str(errors.UnknownFunction("demo.ad", ["demo.add"], 4, 3)) == (
        'no worker knows "demo.ad". Closest: demo.add. Known on 4 workers: 3 functions '
        "(evener ls functions). Did you restart the workers after adding it?"
    )
    late = errors.TaskTimeout("queue", 3, "f[7]")
    assert (
        str(late) == "task f[7] waited in its queue longer than its limit of 3 s (change: expires=)"
    )
    assert isinstance(late, TimeoutError)
