"""Same events, times and seed: the same effects, in every process and hash seed (I30)."""

from __future__ import annotations

import hashlib
import os
import random
import subprocess
import sys

from evener_broker.effects import Send
from evener_wire import messages as m
from evener_wire.codec import encode
from tests.support import ROOT
from tests.unit.broker.world import World


def play(seed: int) -> str:
    """A digest of all that a broker sends in a random but fixed play of two hundred scenes."""
    chance = random.Random(seed)
    world = World(seed=seed)
    world.trace = []
    functions = [f"demo.{name}" for name in ("add", "sub", "mul", "div")]
    agents = [
        # Names and loads repeat, so that only an order by chance could tell them apart.
        world.agent(f"host-{n}", slots=2, functions=functions[n % 3 :], queues=["default", "b"])
        for n in range(6)
    ]
    clients = [world.client(f"c{n}") for n in range(3)]
    number = 0
    for _ in range(200):
        client, agent = chance.choice(clients), chance.choice(agents)
        scene = chance.randrange(8)
        if scene < 3:
            count = chance.randrange(1, 12)
            client.submit(
                *range(number, number + count),
                function=chance.choice(functions),
                retries=chance.randrange(3),
                priority=chance.choice((0, 5, 9)),
                queue=chance.choice(("default", "b")),
            )
            number += count
        elif scene < 6:
            for task in list(agent.numbers()):
                agent.ends(task, chance.choice((m.DONE, m.DONE, m.FAILED, m.LOST, m.RETURNED)))
        elif scene == 6:
            agent.come_back()
        else:
            client.acknowledge()
        world.pass_ms(chance.randrange(60))
    digest = hashlib.sha256()
    for effect in world.trace:
        if isinstance(effect, Send):
            digest.update(effect.peer)
            for frame in encode(effect.message, effect.session, effect.number):
                digest.update(frame)
        else:
            digest.update(repr(effect).encode())
    return f"{len(world.trace)} {digest.hexdigest()}"


def test_the_same_play_twice_is_the_same() -> None:
    assert play(1) == play(1)
    assert play(1) != play(2)


def test_the_same_play_under_another_hash_seed_is_the_same() -> None:
    program = "from tests.unit.broker.test_determinism import play; print(play(3))"
    path = os.pathsep.join([str(ROOT), *sys.path])
    told = {
        subprocess.run(
            [sys.executable, "-c", program],
            env=os.environ | {"PYTHONHASHSEED": str(seed), "PYTHONPATH": path},
            cwd=ROOT,
            capture_output=True,
            text=True,
            check=True,
            timeout=60,
        ).stdout
        for seed in (0, 1, 4_711)
    }
    assert len(told) == 1
    assert told.pop().split()[0].isdigit()
