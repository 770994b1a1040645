"""T15: an agent that lies about the results of tasks that were given to it.

Its results are its word, which nobody can check. What holds: the client gets data, an exception of
evener or a refusal, never code; and other tasks of the same client go on.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

import msgpack
import pytest

import evener
from evener import payload as payloads
from evener_wire import messages as m
from evener_wire.errors import PeerError
from evener_wire.limits import INLINE_BYTES_MAX
from tests.bad_inputs.attackers import Attacker
from tests.bad_inputs.live import Live
from tests.bad_inputs.test_names import evil_payloads

# A payload, and the facts beside it, that an agent may send as the failure of a task.
FAILURES: Final[dict[str, tuple[bytes, dict[str, Any]]]] = {
    "nothing": (b"", {}),
    "no failure": (b"\xc1\xc1", {"type": "os.system", "message": "rm"}),
    "a type that is a function": (
        msgpack.packb(["os.system", ["touch /tmp/x"], "trace"]),
        {"type": "os.system", "message": "touch /tmp/x"},
    ),
    "long texts": (b"\x90", {"type": "E" * 100_000, "message": "m" * 500_000}),
    "what steers a terminal": (b"\x90", {"type": "\x1b[2J", "message": "\r\n\x1b]0;x\x07"}),
    "facts that are no texts": (b"\x90", {"type": 5, "message": (1, 2), "types": ("x", 7, None)}),
    "nested": (b"\x91" * 60_000, {"type": "ValueError"}),
}

# Results that are not what a worker of evener makes.
VALUES: Final[dict[str, bytes]] = {
    "nothing": b"",
    "two values": b"\x92\x01\x02",
    "a map": b"\x81\xa1a\x01",
    "never used": b"\xc1",
    "nested": b"\x91" * 60_000,
    "declared 4 GiB": b"\x91\xc6\xff\xff\xff\xff",
    "extension": b"\x91\xc7\x01\x7f\x00",
    "frames that are not there": b"\x91\xd4\x05\x09",
}


def give(live: Live, agent: Attacker, answer: Callable[[bytes, int], m.Result]) -> Exception | Any:
    """What the good client gets for a task whose result this agent makes."""
    future = live.client.function("evil.f", queue="evil").submit()
    ((task_id, fence, *_),) = agent.expect(m.Run).items
    agent.say(answer(task_id, fence))
    return future.exception(15)


def evil_agent(maker: Callable[[], Attacker]) -> Attacker:
    agent = maker()
    agent.hello("agent")
    agent.offer("evil.f")
    return agent


def test_t15_failures_are_text(live: Live) -> None:
    with live.attacked(sessions_opened=1, agents_lost=1) as attacker:
        agent = evil_agent(attacker)
        for name, (payload, facts) in FAILURES.items():
            error = give(
                live,
                agent,
                lambda i, f, p=payload, x=facts: m.Result([(i, f, m.FAILED, p, 1, x)]),  # type: ignore[misc]
            )
            assert isinstance(error, evener.EvenerError), (name, error)
            assert len(str(error)) < 100_000, name
            assert "\x1b" not in str(error), name
        agent.leave()


def test_t15_values_that_are_none(live: Live) -> None:
    with live.attacked(sessions_opened=1, agents_lost=1) as attacker:
        agent = evil_agent(attacker)
        for name, payload in VALUES.items():
            error = give(
                live,
                agent,
                lambda i, f, p=payload: m.Result([(i, f, m.DONE, p, 1, None)]),  # type: ignore[misc]
            )
            assert isinstance(error, PeerError | evener.EvenerError), (name, error)
        agent.leave()


def test_t15_a_result_that_declares_more_than_it_brings(live: Live) -> None:
    """Frames that did not come, and a payload that should have been a frame: malformed."""
    with live.attacked(
        "agents_lost", sessions_opened=3, messages_malformed=3, violations=3
    ) as attacker:
        for payload in (1, 512, b"x" * (INLINE_BYTES_MAX + 1)):
            agent = attacker()
            agent.hello("agent")
            item = [bytes(16), 1, m.DONE, payload, 1, None]
            agent.frames(msgpack.packb([m.Result.KIND, agent.session, 1, [item]]))
            assert agent.expect(m.Refused).code == "violation"


def test_t15_certificates_of_deaths_are_cut(live: Live) -> None:
    """What an agent tells of a lost worker is shown to people: it is short and bounded."""
    lines = tuple("\x1b[31m" + "x" * 10_000 for _ in range(90))
    facts = {"lines": lines, "signal": "SIGKILL" * 10_000, "exit_code": "\r\n"}
    with live.attacked(sessions_opened=1, agents_lost=1) as attacker:
        agent = evil_agent(attacker)
        future = live.client.function("evil.f", queue="evil", max_starts=1).submit()
        ((task_id, fence, *_),) = agent.expect(m.Run).items
        agent.say(m.Result([(task_id, fence, m.LOST, b"", 1, facts)]))
        error = future.exception(15)
        assert isinstance(error, evener.TaskLost)
        assert len(str(error)) < 40_000
        assert "\x1b" not in str(error)
        agent.leave()


@pytest.mark.parametrize("place", range(6))
def test_t14_t15_without_trust_nothing_is_unpickled(
    place: int, tmp_path: Any, record_property: Callable[[str, object], None]
) -> None:
    """As worker and client do on links that reach beyond one machine."""
    canary = tmp_path / "canary"
    evil = evil_payloads(canary)[place]
    for decode in (
        lambda: payloads.decode_call(evil, False),
        lambda: payloads.decode_value(evil, False),
        lambda: payloads.decode_chunk_result(evil, False, 1),
        lambda: payloads.decode_value(m.Frames([evil, evil]), False),
    ):
        with pytest.raises(PeerError):
            decode()
    assert not canary.exists()
