"""Peers without manners: who errs often is not read, and who causes many lines gets few."""

from __future__ import annotations

from collections import Counter

from evener_broker.effects import Send
from evener_broker.events import Malformed, Received
from evener_broker.logbook import LogBook, one_line
from evener_broker.rates import Rates
from evener_wire import messages as m
from evener_wire.codec import Envelope
from evener_wire.limits import (
    AGENTS_MAX,
    BROKER_FUNCTIONS_MAX,
    CLIENTS_MAX,
    HELLO_FACTS_BYTES_MAX,
    PROTOCOL_ERRORS_MAX,
    PROTOCOL_ERRORS_NS,
    QUARANTINE_NS,
    RESYNC_AGAIN_NS,
    SECOND_NS,
)
from tests.unit.broker.world import Agent, Client, Told, World, task_id

MS = 1_000_000


# --- Rates ----------------------------------------------------------------------------------------


def test_events_beyond_the_bound_of_a_window_are_counted_by_how_many() -> None:
    rates = Rates(2, 1_000)
    assert [rates.excess(b"a", now) for now in (0, 1, 2, 3)] == [0, 0, 1, 2]
    assert rates.excess(b"b", 3) == 0, "each key counts by itself"
    assert rates.excess(b"a", 1_000) == 0, "a new window"


def test_the_table_of_rates_is_bounded_and_forgets_who_was_quiet_longest() -> None:
    rates = Rates(1, 1_000, keys_max=3)
    for key in (b"a", b"b", b"c", b"a", b"d"):
        rates.excess(key, 0)
    assert len(rates) == 3
    assert rates.excess(b"a", 0) == 2
    assert rates.excess(b"b", 0) == 0, "forgotten, and begun anew"


# --- Quarantine -----------------------------------------------------------------------------------


def test_as_many_errors_as_allowed_are_answered_each() -> None:
    world = World()
    client = Client(world, "client")
    for _ in range(PROTOCOL_ERRORS_MAX):
        client.hello()
        client.garble()
    assert world.counter("messages_malformed") == PROTOCOL_ERRORS_MAX
    assert client.hello(), "still heard"


def test_one_more_error_and_nothing_is_read_for_a_while() -> None:
    world = World()
    client, other = Client(world, "client"), world.client("other")
    for _ in range(PROTOCOL_ERRORS_MAX + 1):
        client.garble()
    assert world.counter("quarantines") == 1
    assert client.hello() == []
    assert client.garble() == []
    assert world.counter("messages_quarantined") == 2
    assert world.counter("messages_malformed") == PROTOCOL_ERRORS_MAX + 1
    assert other.submit(1) != []
    world.pass_ms(QUARANTINE_NS / MS - 1, silent=[client])
    assert client.hello() == []
    world.pass_ms(2)
    assert client.hello() != []


def test_errors_that_lie_far_apart_do_not_add_up() -> None:
    world = World()
    client = Client(world, "client")
    for _ in range(3):
        for _ in range(PROTOCOL_ERRORS_MAX):
            client.garble()
        world.pass_ms(PROTOCOL_ERRORS_NS / MS)
    assert world.counter("quarantines") == 0


def test_what_a_role_may_not_send_counts_as_an_error() -> None:
    world = World()
    client = Client(world, "client")
    for _ in range(PROTOCOL_ERRORS_MAX + 1):
        world.pass_ms(1_000)
        client.hello()
        client.say(m.Accepted(1))
    assert world.counter("messages_forbidden") == PROTOCOL_ERRORS_MAX + 1
    assert client.hello() == []


def test_the_tables_of_the_quarantine_are_bounded() -> None:
    world = World()
    for number in range(5_000):
        peer = number.to_bytes(4, "big")
        world.core.step(world.now_ns, [Malformed(peer, "?")] * (PROTOCOL_ERRORS_MAX + 1))
    assert len(world.core.quarantined) <= 4_096
    assert world.counter("quarantines") == 5_000


# --- Lines for the operator -----------------------------------------------------------------------


def test_a_line_is_one_line_whatever_a_peer_puts_into_it() -> None:
    assert one_line("a\r\nINFO b\x1b[2J\u202e\udcff") == "a\\r\\nINFO b\\x1b[2J\\u202e\\udcff"
    assert one_line("gr\u00fc\u00dfe") == "gr\u00fc\u00dfe"
    assert len(one_line("x" * 100_000)) == 500


def test_who_causes_many_lines_gets_few_of_them() -> None:
    counters: Counter[str] = Counter()
    book = LogBook(counters)
    lines = [book.line("info", f"line {n}", b"peer") for n in range(100)]
    written = [line.text for line in lines if line is not None]
    assert len(written) == 11
    assert written[-1] == "line 10 (more about this peer are left out for now)"
    assert counters["log_lines_dropped"] == 89
    assert book.line("info", "of another", b"other") is not None
    book.now_ns = 60 * SECOND_NS
    assert book.line("info", "later", b"peer") is not None


def test_all_peers_together_do_not_fill_the_log_and_the_broker_is_always_heard() -> None:
    book = LogBook(Counter())
    written = [book.line("info", "x", n.to_bytes(4, "big")) for n in range(10_000)]
    assert sum(line is not None for line in written) == 601
    assert book.line("error", "the disk is full", None) is not None


def test_a_reason_to_leave_makes_one_line() -> None:
    world = World()
    world.agent("liar").say(m.Goodbye("bye\n2026 INFO forged"))
    assert all(log.text.isprintable() for log in world.logs)
    assert any("bye\\n2026 INFO forged" in log.text for log in world.logs)


# --- What peers make up ---------------------------------------------------------------------------


def test_facts_of_a_hello_are_kept_within_a_bound() -> None:
    world = World()
    client = Client(world, "client")
    facts = {"host": "h1", "pad": "x" * HELLO_FACTS_BYTES_MAX, "pid": 7}
    hello = m.Hello(1, 1, "client", client.instance, "client", 0, bytes(16), facts)
    world.turn(Received(client.connection, Envelope(0, 0, hello)))
    assert world.core.tables.clients[client.instance].facts == {"host": "h1", "pid": 7}


def test_instances_are_bounded_and_those_known_may_come_back() -> None:
    world = World()
    agent, client = world.agent(), world.client()
    tables = world.core.tables
    tables.agents.update(
        {n.to_bytes(16, "big"): agent.record for n in range(AGENTS_MAX - len(tables.agents))}
    )
    mine = tables.clients[client.instance]
    tables.clients.update(
        {n.to_bytes(16, "big"): mine for n in range(CLIENTS_MAX - len(tables.clients))}
    )
    for role, peer in (("agent", agent), ("client", client)):
        hello = m.Hello(1, 1, role, b"new".ljust(16), "new", 0, bytes(16), {})  # type: ignore[arg-type]
        effects = world.core.step(world.now_ns, [Received(b"other", Envelope(0, 0, hello))])
        messages = [effect.message for effect in effects if isinstance(effect, Send)]
        assert [x.code for x in messages if isinstance(x, m.Refused)] == ["busy"]
        peer.connection = b"again"
        effects = world.core.step(world.now_ns, [peer.hello_event()])
        kinds = [type(getattr(effect, "message", None)) for effect in effects]
        assert m.Welcome in kinds


def test_functions_that_nobody_needs_make_room_for_new_ones() -> None:
    world = World()
    agent, client = world.agent(), world.client()
    tables = world.core.tables
    client.submit(1, function="~kept", queue="nobody")
    for number in range(BROKER_FUNCTIONS_MAX - len(tables.functions)):
        tables.function(f"f{number}")
    agent.offer(slots=1)
    assert tables.may_know_function("one.more")
    assert {"~kept", "demo.add"} == tables.functions.keys()
    for number in range(BROKER_FUNCTIONS_MAX - len(tables.functions)):
        tables.function(f"g{number}")
    assert not tables.may_know_function("one.more"), "they are looked for once a minute"
    assert tables.may_know_function("~kept")


def test_starts_and_cancels_of_nothing_are_counted() -> None:
    world = World()
    agent, client = world.agent(), world.client()
    client.submit(1)
    agent.starts(1)
    assert world.counter("starts_stale") == 0
    agent.say(m.Started([(task_id(1), agent.fence(1) + 1), (task_id(2), 5)]))
    client.cancel(7, 8)
    assert world.counter("starts_stale") == 2
    assert world.counter("cancels_stale") == 2
    assert isinstance(agent, Agent)


def test_only_some_of_many_unknown_functions_are_looked_up() -> None:
    """Each look-up compares with all names there are; the refusal itself is for everybody."""
    world = World()
    world.agent(functions=["demo.add"])
    client = world.client()
    for number in range(100):
        client.submit(number, function=f"demo.ad{number}")
    texts = [text for message in client.got(m.Rejected) for _, _, text in message.items]
    assert len(texts) == 100
    assert sum("Closest: demo.add" in text for text in texts) == 50
    assert all("no worker knows" in text for text in texts)


def without_session(world: World, client: Client, count: int) -> Told:
    """So many messages on a connection that has no session."""
    messages = [Envelope(5, number, m.Heartbeat()) for number in range(1, count + 1)]
    return world.turn(*(Received(client.connection, envelope) for envelope in messages))


def test_who_has_no_session_and_goes_on_is_told_so_now_and_then() -> None:
    """I21: an answer to each of them would wait for it here, if it does not read."""
    world = World()
    client = Client(world, "client")
    resync = [(client, m.Resync("unknown session"))]
    assert without_session(world, client, 1_000) == resync
    assert world.counter("messages_unknown_peer") == 1_000
    assert world.counter("resyncs_withheld") == 999
    world.pass_ms(RESYNC_AGAIN_NS / 1e6 - 1)
    assert without_session(world, client, 1) == []
    world.pass_ms(1)
    assert without_session(world, client, 1) == resync


def test_who_loses_one_session_after_the_other_is_told_so_at_once() -> None:
    world = World()
    client = Client(world, "client")
    for _ in range(3):
        assert without_session(world, client, 2) == [(client, m.Resync("unknown session"))]
        client.hello()
        client.say(m.Goodbye("bye"))
