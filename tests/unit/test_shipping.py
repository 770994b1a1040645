"""Functions by value: made into bytes once, but never bytes of what they were before."""

from __future__ import annotations

import math
import pickle
import subprocess
import sys
import threading
from decimal import Decimal
from typing import Any

import numpy as np
import pytest

from evener.app import App
from evener.errors import NotSendable, PeerError
from evener.payload import decode_call, encode_call
from evener.shipping import Loaded, ship, shipped_name


def test_functions_by_value_with_plain_arguments() -> None:
    offset = 10
    shift = lambda x: x + offset  # noqa: E731
    payload = encode_call(shipped_name(shift), (1,), code=ship(shift))
    args, kwargs, code = decode_call(payload, True)
    assert kwargs is None
    assert code is not None
    assert Loaded().get(code)(*args) == 11
    with pytest.raises(PeerError, match="not trusted"):
        decode_call(payload, False)


def test_names_of_functions_by_value() -> None:
    assert shipped_name(math.sqrt) == "~math.sqrt"
    assert shipped_name(lambda: 0).endswith(".<lambda>")
    assert shipped_name(Decimal).endswith("decimal.Decimal")
    assert len(shipped_name(type("T" * 300, (), {}))) == 128


def test_bytes_of_a_function_are_used_again_while_it_is_the_same() -> None:
    scope: dict[str, Any] = {"__name__": "__main__", "factor": 2}
    exec("def scale(x): return x * factor", scope)
    scale = scope["scale"]
    assert ship(scale) is ship(scale)
    scope["factor"] = 3
    assert Loaded().get(ship(scale))(5) == 15
    # What can change in place is packed anew each time.
    scope["factor"] = np.array([1])
    before = ship(scale)
    scope["factor"][0] = 4
    assert Loaded().get(before)(5) == [5]
    assert Loaded().get(ship(scale))(5) == [20]


PROGRAM = """
import sys
from evener.app import App
from evener.shipping import ship

app = App("program")

@app.task(retries=2)
def helper(x): return x + 1

@app.task
def fib(n): return n if n < 2 else fib(n - 1) + fib(n - 2)

@app.task
def uses(x): return helper(x) * fib(10)

assert ship(uses.function) is ship(uses.function)
sys.stdout.buffer.write(ship(uses.function))
"""


def test_tasks_of_main_that_call_each_other_travel_together() -> None:
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, check=True)
    uses = Loaded().get(done.stdout)
    assert uses(1) == 110
    helper = uses.__globals__["helper"]
    assert (helper.name, helper.task_options.retries) == ("program.helper", 2)
    # Where the app is, its own function is taken.
    app = App("program")

    def other(x: int) -> int:
        return -x

    app.task(other, name="program.helper")
    assert Loaded().get(done.stdout)(1) == -55


def test_a_function_that_cannot_be_sent_is_named() -> None:
    lock = threading.Lock()
    with pytest.raises(NotSendable, match=r"function .*<lambda>: function is or uses something"):
        ship(lambda: lock)


def test_a_worker_keeps_a_bounded_number_of_functions() -> None:
    loaded = Loaded()
    codes = [ship(eval(f"lambda: {number}")) for number in range(300)]
    assert [loaded.get(code)() for code in codes] == [*range(300)]
    assert len(loaded._functions) == 256
    with pytest.raises(PeerError, match="not callable"):
        loaded.get(pickle.dumps(Decimal(1)))
