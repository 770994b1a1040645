"""A broker without a journal that knows which agents there were waits for those, and no longer."""

from __future__ import annotations

import random
from collections.abc import Sequence
from pathlib import Path

import pytest

from evener_broker import roster_file
from evener_broker.effects import NoteAgent
from evener_broker.roster import Notes
from evener_broker.roster_file import RosterFile
from evener_wire import messages as m
from evener_wire.limits import RECOVERY_NS
from tests.unit.broker.world import CALL, Agent, Client, World, task_id

WINDOW_MS = RECOVERY_NS / 1_000_000
OLD = m.fence_of(1, 3)
BEFORE = b"the one before.."
OTHER = b"some other one.."


def instance_of(name: str) -> bytes:
    return name.encode().ljust(16, b"-")


def restarted(*agents: str) -> World:
    """A broker whose predecessor knew these."""
    return World(epoch=2, notes=Notes(BEFORE, tuple(map(instance_of, agents))))


def returning(world: World, name: str = "client", broker: bytes = BEFORE) -> Client:
    """A client that was connected to that broker."""
    client = Client(world, name)
    client.epoch, client.broker = 1, broker
    client.hello()
    return client


def reporting(world: World, name: str, *numbers: int) -> Agent:
    """An agent that tells what it still runs."""
    held = [(task_id(number), OLD) for number in numbers]
    agent = Agent(world, name)
    agent.slots = 2
    agent.functions = [("demo.add", None)]
    for subject, fence in held:
        agent.hand[subject] = (subject, fence, "demo.add", CALL, 0, 0)
    agent.hello()
    agent.offer(held=held)
    return agent


def test_work_goes_out_as_soon_as_all_agents_told() -> None:
    """I23: what one of them runs is adopted, the rest runs nowhere."""
    world = restarted("one", "two")
    client = returning(world)
    client.submit(1, 2, again=True)
    one = reporting(world, "one")
    assert world.state(1) == world.state(2) == "held"
    two = reporting(world, "two", 2)
    assert world.state(2) == "running"
    assert one.numbers() == [1]
    assert two.got(m.Run) == []


def test_what_is_submitted_again_later_is_not_held() -> None:
    world = restarted("one")
    agent = reporting(world, "one")
    returning(world).submit(1, again=True)
    assert agent.numbers() == [1]


def test_an_agent_that_is_missing_is_waited_for() -> None:
    """Also when others come that the earlier broker did not know."""
    world = restarted("one", "two")
    client = returning(world)
    client.submit(1, again=True)
    one, new = reporting(world, "one"), reporting(world, "new")
    world.pass_ms(WINDOW_MS - 1)
    assert world.state(1) == "held"
    assert one.numbers() == new.numbers() == []
    world.pass_ms(2)
    assert world.state(1) == "assigned"


def test_a_session_alone_tells_nothing() -> None:
    """What the agent holds comes with its OFFER."""
    world = restarted("one")
    returning(world).submit(1, again=True)
    Agent(world, "one").hello()
    assert world.state(1) == "held"


@pytest.mark.parametrize("last", [OTHER, bytes(16)], ids=["another", "none"])
def test_nobody_vouches_for_what_another_broker_gave_out(last: bytes) -> None:
    """Its agents are not in these notes; the others need not wait for its clients."""
    world = restarted("one")
    stranger, client = returning(world, "stranger", last), returning(world)
    stranger.submit(1, again=True)
    client.submit(2, again=True)
    agent = reporting(world, "one")
    assert agent.numbers() == [2]
    stranger.submit(3, again=True)
    world.pass_ms(WINDOW_MS - 1)
    assert world.state(1) == world.state(3) == "held"
    world.pass_ms(2)
    assert world.state(1) == "assigned"


def test_who_did_not_come_in_time_is_vouched_for_by_nobody() -> None:
    """I7: it may come later with what it runs, so its broker's clients get no short way."""
    world = restarted("one", "two")
    client = returning(world)
    reporting(world, "one")
    world.pass_ms(WINDOW_MS + 1)
    assert world.noted[-1] == NoteAgent(instance_of("two"), gone=True)
    client.submit(1, again=True)
    assert world.state(1) == "assigned", "the time to wait is over"


def test_what_came_behind_keeps_its_place() -> None:
    """I13: a new task does not overtake those that were held before it."""
    world = restarted("one")
    client = returning(world)
    client.submit(1, 2, again=True)
    client.submit(3)
    assert world.state(3) == "held"
    agent = reporting(world, "one")
    assert agent.numbers() == [1, 2]
    agent.done(1)
    agent.done(2)
    assert agent.numbers() == [3]


def test_a_task_that_runs_once_is_lost_when_nobody_has_it() -> None:
    """I15: it may have ended with the earlier broker."""
    world = restarted("one")
    client = returning(world)
    client.submit(1, again=True, at_most_once=True)
    reporting(world, "one")
    assert client.end(1) == "lost"


def test_each_agent_is_noted_before_it_hears_anything() -> None:
    world = restarted()
    world.trace = []
    agent = world.agent("one")
    kinds = [type(effect).__name__ for effect in world.trace]
    assert kinds.index("NoteAgent") < kinds.index("Send")
    agent.say(m.Goodbye("stopped"))
    came, gone = world.noted
    assert (came, gone) == (NoteAgent(agent.instance), NoteAgent(agent.instance, gone=True))


# --- The file -------------------------------------------------------------------------------------


def known(path: Path) -> set[bytes] | None:
    """What the next broker would know."""
    found = RosterFile(path, OTHER)
    found.close()
    return None if found.before is None else set(found.before.agents)


def noted(path: Path, *names: str, gone: Sequence[str] = ()) -> None:
    """A broker that notes these, and is killed."""
    file = RosterFile(path, BEFORE)
    for name in names:
        file.note(NoteAgent(instance_of(name)))
    for name in gone:
        file.note(NoteAgent(instance_of(name), gone=True))
    file.close()


def test_the_next_broker_reads_what_the_last_one_noted(tmp_path: Path) -> None:
    path = tmp_path / "agents"
    noted(path, "one", "two", "three", gone=["two"])
    file = RosterFile(path, OTHER)
    assert file.before == Notes(BEFORE, (instance_of("one"), instance_of("three")))
    file.note(NoteAgent(instance_of("four")))
    file.close()
    again = RosterFile(path, BEFORE)
    again.close()
    assert again.before is not None
    assert again.before.broker == OTHER
    names = ("one", "three", "four")
    assert set(again.before.agents) == set(map(instance_of, names)), "those that did not come yet"


def test_a_line_that_is_not_whole_did_not_happen(tmp_path: Path) -> None:
    path = tmp_path / "agents"
    noted(path, "one", "two")
    path.write_bytes(path.read_bytes()[:-3])
    assert known(path) == {instance_of("one")}


def test_another_boot_of_the_host_makes_it_void(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was written last may not have reached the disk."""
    path = tmp_path / "agents"
    noted(path, "one")
    boot = tmp_path / "boot_id"
    boot.write_text("another\n")
    monkeypatch.setattr(roster_file, "_BOOT", boot)
    assert known(path) is None


@pytest.mark.parametrize(
    "damage",
    [
        b"",
        b"\n",
        b"evener-agents-1\n",
        b"+" + b"00" * 16 + b"\n",
        b"%s*" + b"00" * 16 + b"\n",
        b"%s+zz\n",
        b"%s+" + b"00" * 15 + b"\n",
        b"%s+\xff\n",
        b"%s\n",
    ],
)
def test_a_file_that_is_not_as_it_should_be_says_nothing(tmp_path: Path, damage: bytes) -> None:
    path = tmp_path / "agents"
    noted(path, "one")
    path.write_bytes(damage.replace(b"%s", path.read_bytes()))
    assert known(path) is None
    assert known(path) == set(), "and is written anew"


def test_bytes_at_random_say_nothing(tmp_path: Path) -> None:
    path, rng = tmp_path / "agents", random.Random(1)
    for size in range(200):
        path.write_bytes(rng.randbytes(size))
        assert known(path) is None


def test_a_file_too_large_to_be_ours_is_not_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "agents"
    noted(path, "one", "two")
    monkeypatch.setattr(roster_file, "_FILE_BYTES_MAX", 100)
    assert known(path) is None


def test_agents_that_come_and_go_do_not_make_it_grow(tmp_path: Path) -> None:
    path = tmp_path / "agents"
    file = RosterFile(path, BEFORE)
    file.note(NoteAgent(instance_of("stays")))
    for number in range(2_000):
        file.note(NoteAgent(instance_of(str(number))))
        file.note(NoteAgent(instance_of(str(number)), gone=True))
    file.close()
    assert path.stat().st_size < 1_100 * 34
    assert known(path) == {instance_of("stays")}


def test_what_cannot_be_noted_leaves_no_half_of_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A disk that is full: the next broker knows nothing, and waits."""
    path = tmp_path / "agents"
    file = RosterFile(path, BEFORE)
    file.note(NoteAgent(instance_of("one")))

    def full(descriptor: int, data: bytes) -> int:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("os.write", full)
        file.note(NoteAgent(instance_of("two")))
    assert "No space left on device" in caplog.text
    file.note(NoteAgent(instance_of("three")))
    file.close()
    assert not path.exists()
    assert known(path) is None
