"""The agent's session with the broker: events in, exact effects out."""

from __future__ import annotations

from evener_wire import messages as m
from evener_wire.codec import Envelope
from evener_wire.limits import HEARTBEAT_NS, RECONNECT_AGENT_MAX_NS, RECOVERY_NS
from evener_worker import effects as f
from evener_worker import events as e
from evener_worker.limits import FACTS_AGAIN_NS
from tests.agent_harness import BROKER, INSTANCE, SECOND, Bench, item, key, only, results, sent

HELLO = m.Hello(1, 1, "agent", INSTANCE, "n", 0, bytes(16), {})


def test_it_starts_its_workers_and_then_says_hello() -> None:
    bench = Bench()
    assert bench.effects == [
        f.StartWorker(1, "n:1"),
        f.StartWorker(2, "n:2"),
        f.Send(0, 0, HELLO),
    ]


def test_the_first_offer_tells_all() -> None:
    bench = Bench()
    assert sent(bench.welcome()) == [m.Offer(0, False, ("default",), None, [])]
    assert sent(bench.ready(2)) == [m.Offer(1, False, ("default",), [("t.f", None)], None)]


def test_whoever_started_it_is_told() -> None:
    bench = Bench().open()
    assert [tell.report["event"] for tell in only(bench.effects, f.Tell)] == [
        "connected",
        "worker",
        "worker",
        "ready",
    ]


def test_hello_is_said_at_once_when_the_connection_stands() -> None:
    bench = Bench()
    assert bench.step(e.SendFailed()) == []
    assert bench.step(e.Writable()) == [f.Send(0, 0, HELLO)]
    assert bench.step(e.Writable()) == []


def test_hello_is_repeated_each_second_and_no_faster() -> None:
    bench = Bench()
    assert bench.tick(900) == []
    assert bench.tick(100) == [f.Send(0, 0, HELLO)]
    assert bench.tick(900) == []


def test_silence_opens_a_new_connection() -> None:
    bench = Bench().open()
    effects = bench.tick(4_001)
    assert only(effects, f.Reconnect) == [f.Reconnect(1 * SECOND)]
    assert m.Hello(1, 1, "agent", INSTANCE, "n", 3, BROKER, {}) in sent(effects)
    assert "lost the broker" in only(effects, f.Log)[0].text
    assert not only(bench.tick(3_000), f.Log), "one line on loss, and nothing in between"
    assert "is back after" in only(bench.welcome(session=12), f.Log)[0].text


def test_a_repeated_message_is_dropped_and_a_gap_says_hello() -> None:
    bench = Bench().open()
    assert bench.sequence is not None
    bench.say(m.Run([item(1)]))
    assert bench.step(e.Received(Envelope(11, 2, m.Run([item(2)])))) == []
    assert key(2) not in bench.core.ledger.open
    again = bench.step(e.Received(Envelope(11, 9, m.Run([item(3)]))))
    assert [type(message) for message in sent(again)] == [m.Hello]


def test_resync_says_hello_once() -> None:
    bench = Bench().open()
    resync = e.Received(Envelope(0, 0, m.Resync("who?")))
    assert [type(message) for message in sent(bench.step(resync))] == [m.Hello]
    assert bench.step(resync) == []


def test_results_are_kept_until_taken_and_told_again_in_a_new_session() -> None:
    bench = Bench().open()
    bench.say(m.Run([item(1), item(2)]))
    bench.finish(bench.slot_of(1), 1)
    (first,) = only(bench.finish(bench.slot_of(2), 2), f.SendResults)
    bench.say(m.Ack(first.number - 1))
    bench.step(e.SendFailed())
    bench.step(e.Writable())
    effects = bench.welcome(session=12)
    assert sent(effects)[0] == m.Offer(2, False, ("default",), [("t.f", None)], [key(2)])
    assert results(effects) == [(2, m.DONE)]
    bench.say(m.Ack(only(effects, f.SendResults)[0].number))
    assert bench.core.session.results_held() == []


def test_the_same_broker_finds_everything_as_it_was() -> None:
    bench = Bench(1).open()
    bench.say(m.Run([item(1), item(2)]))
    bench.start(1, 1)
    bench.step(e.Received(Envelope(0, 0, m.Resync(""))))
    (offer,) = sent(bench.welcome(session=12))
    assert isinstance(offer, m.Offer)
    assert offer.held == [key(1), key(2)]


def test_another_broker_finds_only_what_runs() -> None:
    bench = Bench(1).open()
    bench.core.handout.estimates.observe("t.f", 1)
    bench.say(m.Run([item(1), item(2), item(3)]))
    bench.start(1, 1)
    bench.step(e.Received(Envelope(0, 0, m.Resync(""))))
    effects = bench.welcome(broker=b"c" * 16, session=12)
    (offer,) = sent(effects)
    assert isinstance(offer, m.Offer)
    assert offer.held == [key(1)]
    assert results(bench.finish(1, 1)) == [(1, m.DONE)]


def test_a_silent_broker_stops_the_start_of_work() -> None:
    bench = Bench(1).open()
    bench.core.handout.estimates.observe("t.f", 1)
    bench.say(m.Run([item(number) for number in range(1, 5)]))
    bench.start(1, 1)
    bench.tick(3_001)
    assert [attempt.key for attempt in bench.core.ledger.waiting] == [key(2), key(3), key(4)]
    bench.step(e.Dropped(1, 4))
    assert not only(bench.finish(1, 1), f.Hand)
    # What comes this late may have lain in the socket: the broker has to confirm what it thinks.
    (hello,) = sent(bench.say(m.Heartbeat()))
    assert isinstance(hello, m.Hello)
    assert not only(bench.welcome(session=12), f.Hand)
    assert only(bench.say(m.Heartbeat()), f.Hand)


def test_what_was_given_away_does_not_start_after_a_stall() -> None:
    """I7: the broker's word on what we hold comes before anything of it starts."""
    bench = Bench(1).open()
    bench.say(m.Run([item(1), item(2)]))
    bench.start(1, 1)
    bench.now_ns += 6_000_000_000
    assert not only(bench.finish(1, 1), f.Hand)
    bench.say(m.Run([item(3)]))  # it lay in the socket while this agent stood still
    bench.welcome(session=12)
    assert not only(bench.say(m.Cancel([key(2)])), f.Hand)
    assert bench.core.ledger.open == {}


def test_it_beats_each_second_with_what_runs() -> None:
    bench = Bench(1).open()
    bench.say(m.Run([item(1)]))
    bench.step(e.Measured({1: (5_000, 70)}))
    bench.start(1, 1)
    (beat,) = [message for message in sent(bench.tick(1_000)) if type(message) is m.Heartbeat]
    assert beat.running == [(*key(1), 1_000)]
    assert beat.workers[0] == {
        "name": "n:1",
        "pid": 101,
        "state": "ready",
        "rss_bytes": 5_000,
        "cpu_ms": 70,
        "tasks": 0,
        "restarts": 0,
        "recycled": 0,
        "running": "t.f",
        "task": key(1)[0],
        "running_ms": 1_000,
    }


def test_a_refusal_by_protocol_ends_it_and_others_wait() -> None:
    bench = Bench()
    refused = e.Received(Envelope(0, 0, m.Refused("protocol", "speaks 2")))
    assert only(bench.step(refused), f.Exit) == [f.Exit(76)]
    bench = Bench()
    assert not only(bench.step(e.Received(Envelope(0, 0, m.Refused("busy", "later")))), f.Exit)
    wake_at = bench.core.session.wake_at()
    assert wake_at is not None
    # At least half a minute, and not all who were refused at the same time.
    assert 30 * SECOND <= wake_at - bench.now_ns < 60 * SECOND
    assert sent(bench.tick(29_999)) == []
    assert sent(bench.tick(30_001)) == [HELLO]


def _retry_after(wait_ms: int) -> e.Received:
    return e.Received(Envelope(0, 0, m.Refused("retry_after", "many come", wait_ms)))


def test_who_is_told_to_come_later_does_so_on_the_same_connection() -> None:
    bench = Bench()
    effects = bench.step(_retry_after(400))
    assert not only(effects, f.Log), "that is nothing to worry a person with"
    assert sent(bench.tick(399)) == []
    effects = bench.tick(101)
    assert sent(effects) == [HELLO]
    assert not only(effects, f.Reconnect)
    bench.step(_retry_after(2_000))
    assert not bench.tick(1_999)
    effects = bench.tick(501)
    assert sent(effects) == [HELLO]
    assert not only(effects, f.Reconnect), "the broker spoke: it is not silent"
    assert bench.welcome()


def test_within_a_session_a_wait_is_of_a_hello_that_was_repeated() -> None:
    bench = Bench().open()
    assert bench.step(_retry_after(400)) == []
    assert bench.core.session.is_open


def test_the_window_grows_while_nobody_answers_and_not_beyond_what_recovery_allows() -> None:
    bench = Bench()
    windows = [only(bench.tick(4_001), f.Reconnect)[0].window_ns for _ in range(3)]
    assert windows == [RECONNECT_AGENT_MAX_NS] * 3
    assert RECONNECT_AGENT_MAX_NS < RECOVERY_NS


def test_it_beats_with_the_broker_when_that_is_nearly_due_anyway() -> None:
    """Which finds the beats of many agents together, as it had its own for them in one turn."""
    bench = Bench().open()
    bench.tick(1_000)
    bench.now_ns += 700_000_000
    assert sent(bench.say(m.Heartbeat())) == []
    bench.now_ns += 60_000_000
    assert [type(x) for x in sent(bench.say(m.Heartbeat()))] == [m.Heartbeat]
    assert sent(bench.say(m.Heartbeat())) == []
    assert sent(bench.tick(990)) == [], "the next one is due a second after that"
    assert [type(x) for x in sent(bench.tick(10))] == [m.Heartbeat]


def test_facts_of_workers_are_told_when_they_change_and_now_and_then() -> None:
    bench = Bench().open()
    often = FACTS_AGAIN_NS // HEARTBEAT_NS
    told = [
        bool(message.workers)
        for _ in range(2 * often + 2)
        for message in sent(bench.tick(1_000) + bench.say(m.Heartbeat()))
        if isinstance(message, m.Heartbeat)
    ]
    assert told == [True, *[False] * (often - 1)] * 2 + [True, False]
    bench.step(e.Measured({1: (1 << 20, 5)}))
    assert [type(x) for x in sent(bench.tick(1_000))] == [m.Heartbeat]
    beats = [x for x in sent(bench.effects) if isinstance(x, m.Heartbeat)]
    assert beats[-1].workers
    bench.welcome(broker=b"c" * 16, session=12)
    bench.step(e.Received(Envelope(0, 0, m.Resync("who?"))))
    bench.welcome(broker=b"c" * 16, session=13)
    bench.tick(1_000)
    beats = [x for x in sent(bench.effects) if isinstance(x, m.Heartbeat)]
    assert beats[-1].workers, "a broker that restarted knows nothing"
