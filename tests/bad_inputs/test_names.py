"""T12, T13, T14, T16: names that want to be something else, payloads that want to be run, ids.

A name is a key of a table and a word in a line, and never a path, a module, a pattern or a command.
A payload is bytes. Which queues somebody may use needs keys, and is tested where those are.
"""

from __future__ import annotations

import base64
import os
import pickle
import time
from pathlib import Path
from typing import Any, Final

import msgpack
import pytest

from evener_wire import messages as m
from evener_wire.limits import NAME_BYTES_MAX, PROTOCOL_ERRORS_MAX
from tests.bad_inputs.attackers import Attacker
from tests.bad_inputs.live import Live
from tests.support import wait_until

CALL: Final = b"\x92\x90\xc0"

# What may be a name, and must then be nothing else.
STRANGE: Final = (
    *("os.system", "__import__", "builtins.eval", "../../etc/passwd", "pool/../other", "/dev/mem"),
    *("a;drop table tasks", "x'--", "${jndi:ldap://x}", "%n%s%x", "{0.__class__}", "$(id)", "`id`"),
    *(
        "*",
        "?",
        "[a-z]*",
        "(a+)+$",
        "f\\n",
        "default.",
        "DEFAULT",
        "d\u0435fault",
        "\uff44efault",
        "-rf",
    ),
    *("a" * NAME_BYTES_MAX, "é" * (NAME_BYTES_MAX // 2), "\U0001f600" * (NAME_BYTES_MAX // 4)),
)

# What no name may be.
REFUSED: Final = (
    *(
        "",
        " ",
        "a b",
        "a\0b",
        "\0",
        "a\r\nINFO forged line",
        "a\nb",
        "\x1b[2J",
        "\x1b]0;x\x07",
        "\x7f",
    ),
    *("\u202eevil", "a\u2028b", "\u200b", "\ufeff", "\ufffd", "a\u00a0b", "\x85", "\udcff"),
    *("a" * (NAME_BYTES_MAX + 1), "é" * (NAME_BYTES_MAX // 2 + 1), "a" * 100_000),
)


def _printable(name: str) -> str:
    return name.replace(" ", "_")


def test_t12_strange_names_of_queues_are_queues_and_nothing_more(live: Live) -> None:
    """Each is a queue of its own that nobody serves: look-alikes are not the one they look like."""
    names = [_printable(name) for name in STRANGE]
    with live.attacked(sessions_opened=1) as attacker:
        peer = attacker()
        peer.hello()
        ids = [os.urandom(16) for _ in names]
        items = [
            (i, "b.echo", CALL, m.Options(queue=queue)) for i, queue in zip(ids, names, strict=True)
        ]
        peer.say(m.Submit(items))
        peer.expect(m.Accepted)
        waiting = {row["name"]: row["waiting"] for row in live.status()["queues"]}
        assert {name: waiting[name] for name in names} == dict.fromkeys(names, 1)
        _cancel_all(peer, ids)


def test_t13_strange_names_of_functions_are_unknown(live: Live) -> None:
    names = [_printable(name) for name in STRANGE]
    with live.attacked(sessions_opened=1, tasks_rejected=len(names)) as attacker:
        peer = attacker()
        peer.hello()
        peer.say(m.Submit([(os.urandom(16), name, CALL, None) for name in names]))
        rejected = peer.expect(m.Rejected)
        assert [code for _, code, _ in rejected.items] == ["unknown_function"] * len(names)
        peer.leave()


@pytest.mark.parametrize("place", ["function", "queue", "peer", "question", "offered", "worker"])
def test_t12_t13_what_is_no_name_is_malformed_wherever_it_stands(live: Live, place: str) -> None:
    """It reaches no table and no line of the log (the fixture reads the log)."""
    count = len(REFUSED)
    agents = {"agents_lost": count} if place in ("offered", "worker") else {}
    session = place != "peer"
    broken = {"violations": count, "sessions_opened": count} if session else {}
    with live.attacked(messages_malformed=count, **broken, **agents) as attacker:
        for start in range(0, count, PROTOCOL_ERRORS_MAX):
            for name in REFUSED[start : start + PROTOCOL_ERRORS_MAX]:
                peer = attacker()
                if session:
                    peer.hello("agent" if agents else "client")
                peer.frames(_with_name(peer, place, name))


def _with_name(peer: Attacker, place: str, name: str) -> bytes:
    fields: dict[str, list[Any]] = {
        "function": [m.Submit.KIND, [[bytes(16), name, CALL, None]], False],
        "queue": [m.Submit.KIND, [[bytes(16), "f", CALL, [name]]], False],
        "peer": [m.Hello.KIND, 1, 1, "client", bytes(16), name, 0, bytes(16), {}],
        "question": [m.Query.KIND, 1, name, {}],
        "offered": [m.Offer.KIND, 1, False, [], [[name, None]], []],
        "worker": [m.Offer.KIND, 1, False, [name], None, None],
    }
    kind, *rest = fields[place]
    head = [kind, peer.session, 0 if place == "peer" else 1, *rest]
    packed: bytes = msgpack.packb(head, unicode_errors="surrogatepass")
    return packed


def test_t13_remote_texts_make_no_lines(own: Live) -> None:
    """Texts for people may hold anything: in the log they are one line of plain characters."""
    text = "\r\n2026-01-01 broker INFO forged\x1b[31m\x07" * 20
    with own.attacked(sessions_opened=1, agents_lost=1) as attacker:
        agent = attacker()
        agent.hello("agent", name="liar")
        agent.say(m.Goodbye(text))
    lines = [line for line in own.log_lines() if b"liar is gone" in line]
    assert len(lines) == 1
    assert b"forged\\x1b[31m" in lines[0]


def test_t13_a_peer_that_causes_many_lines_is_cut_short(live: Live) -> None:
    before = len(live.log_lines())
    with live.attacked(sessions_refused=500) as attacker:
        peer = attacker()
        for number in range(500):
            name = f"noisy{number}"
            peer.outside(m.Hello(9, 9, "client", peer.instance, name, 0, bytes(16), {}))
    assert len(live.log_lines()) - before <= 12


def test_t12_a_match_costs_the_same_whatever_the_name(live: Live) -> None:
    """Thousands of unknown names like known ones in one message: others wait no second for it."""
    with live.attacked(sessions_opened=1, tasks_rejected=2_000) as attacker:
        peer = attacker()
        peer.hello()
        names = [f"b.ech{'o' * (number % 90)}{number}" for number in range(2_000)]
        began = time.monotonic()
        peer.say(m.Submit([(os.urandom(16), name, CALL, None) for name in names]))
        peer.expect(m.Rejected)
        live.reports.append(f"2000 unknown names took {time.monotonic() - began:.2f} s")
        peer.leave()


# --- T14: payloads that want to be run ------------------------------------------------------------


def evil_payloads(canary: Path) -> list[bytes]:
    """Bytes that make a file for whoever evaluates them."""
    command = f"touch {canary}"
    return [
        f"cos\nsystem\n(S'{command}'\ntR.".encode(),
        b"\x80\x04\x95" + pickle.dumps((os.system, command), protocol=4)[3:],
        pickle.dumps(_reduced(command), protocol=2),
        f"!!python/object/apply:os.system ['{command}']".encode(),
        f"__import__('os').system('{command}')".encode(),
        base64.b64encode(command.encode()),
    ]


class _reduced:
    def __init__(self, command: str) -> None:
        self.command = command

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, (self.command,)


def test_t14_the_broker_loads_nothing(live: Live, tmp_path: Path) -> None:
    """Pickles and the like as payload, as result, as facts, as names: nobody's file is made."""
    canary = tmp_path / "canary"
    payloads = evil_payloads(canary)
    with live.attacked(
        "tasks_rejected", sessions_opened=2, agents_lost=1, results_stale=len(payloads)
    ) as attacker:
        client, agent = attacker(), attacker()
        client.hello(facts=payloads[0])
        agent.hello("agent", facts=payloads[0])
        agent.offer("evil.f")
        ids = [os.urandom(16) for _ in payloads]
        evil = m.Options(queue="evil")
        client.say(m.Submit([(i, "evil.f", p, evil) for i, p in zip(ids, payloads, strict=True)]))
        done = 0
        while done < len(ids):
            for task_id, fence, _, payload, *_ in agent.expect(m.Run).items:
                assert payload in payloads
                facts = {"type": "os.system", "message": payload}
                item = (task_id, fence, m.FAILED, payload, 1, facts)
                agent.say(m.Result([item, item]))
                done += 1
        ends: list[bytes] = []
        while len(ends) < len(ids):
            terminal = client.expect(m.Terminal)
            ends += [item[2] for item in terminal.items if isinstance(item[2], bytes)]
        client.say(m.Ack(1_000))
        assert sorted(ends) == sorted(payloads), "passed on as they were"
        for payload in payloads:
            client.say(m.Query(1, "ls", {"kind": payload, "id": payload}))
            client.expect(m.Answer)
        client.leave()
        agent.leave()
    assert not canary.exists()


def test_t14_pickles_in_every_field_are_malformed(live: Live, tmp_path: Path) -> None:
    canary = tmp_path / "canary"
    evil = evil_payloads(canary)[2]
    inputs: list[bytes] = [evil, b"\x95" + evil]
    for kind, count in ((m.Hello.KIND, 8), (m.Submit.KIND, 2), (m.Result.KIND, 1), (m.Ack.KIND, 1)):
        inputs += [
            msgpack.packb([kind, 1, 1, *[evil if place == n else 1 for n in range(count)]])
            for place in range(count)
        ]
    with live.attacked(messages_malformed=len(inputs)) as attacker:
        for head in inputs:
            attacker().frames(head)
    assert not canary.exists()


# --- T16: ids -------------------------------------------------------------------------------------


def test_t16_an_id_is_one_task(live: Live) -> None:
    """Again the same: once. With another payload, function or client: a conflict, and no change."""
    with live.attacked(sessions_opened=2, tasks_conflicting=4, tasks_rejected=4) as attacker:
        owner, other = attacker(), attacker()
        owner.hello()
        other.hello()
        task_id, queue = os.urandom(16), m.Options(queue="nobody")
        for _ in range(5):
            owner.say(m.Submit([(task_id, "b.echo", CALL, queue)]))
        owner.sync()
        owner.say(m.Submit([(task_id, "b.echo", b"\x92\x91\x01\xc0", queue)]))
        owner.say(m.Submit([(task_id, "b.stay", CALL, queue)]))
        other.say(m.Submit([(task_id, "b.echo", CALL, queue)]))
        for peer, count in ((owner, 2), (other, 1)):
            codes: list[str] = []
            while len(codes) < count:
                codes += [code for _, code, _ in peer.expect(m.Rejected).items]
            assert codes == ["conflict"] * count
        assert live.status()["tasks"]["queued"] == 1
        _cancel_all(owner, [task_id])
        # Ends are kept for a while, and with them their ids.
        wait_until(lambda: len(live.status()["clients"]) == 2, 10, "the owner to leave")
        other.say(m.Submit([(task_id, "b.stay", b"\x92\x91\x02\xc0", queue)]))
        assert other.expect(m.Rejected).items[0][1] == "conflict"
        other.leave()


def _cancel_all(peer: Attacker, ids: list[bytes]) -> None:
    """End what waits, and take the ends, so that the broker forgets it; then leave."""
    peer.say(m.Cancel([(task_id, 0) for task_id in ids]))
    ended = 0
    while ended < len(ids):
        envelope = peer.hear()
        if isinstance(envelope.message, m.Terminal):
            ended += len(envelope.message.items)
            peer.say(m.Ack(envelope.number))
    peer.leave()
