"""Rows about the network: R8, R8x and R9 (through a proxy), R15, R17, R18.

Rules of this file: hosts are network namespaces, each with one address; a proxy on loopback stands
in where one connection is meant, or where namespaces are not allowed.
"""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from tests.chaos import network
from tests.chaos.cluster import Cluster
from tests.chaos.parts import await_true
from tests.chaos.proxy import Proxy, Way
from tests.chaos.run import IDLE, RATE, SATURATED, Row, Run
from tests.chaos.weather import Weather, why_no_weather

HOSTS = ("broker", "host1", "host2", "client")
WORKERS = 4
SILENCE_S = 4.0


def _victim(cluster: Cluster, token: str) -> str:
    """A task that runs until it is released; the agent that has it."""
    cluster.submit("hold", token, f"{token}.go")
    pid = cluster.wait_started(token)
    return next(name for name, agent in cluster.agents.items() if pid in agent.workers())


def _settle(cluster: Cluster, token: str) -> None:
    """The victim ends, and everybody is back."""
    cluster.release(f"{token}.go")
    cluster.wait_answered(token)
    cluster.wait_for_slots(WORKERS)


# --- R8: partitions -------------------------------------------------------------------------------


def partitions(run: Run) -> None:
    """One host, or the broker's, is cut off: both ways, one way, or its cable is pulled."""
    with run.cluster(HOSTS) as cluster:
        assert cluster.network is not None
        cluster.start(run.load)
        for number in run.repetitions():
            run.moment(0.3)
            token = f"victim{number}"
            agent = _victim(cluster, token)
            how = run.pick("how", ["both", "in", "out", "unplugged", "client"])
            seconds = run.pick("seconds", [1.0, 2.5, 6.0, 7.0])
            if how == "client":
                cut = cluster.network.partition("client")
                with cluster.fault("partition of clients"), cut:
                    time.sleep(seconds)
            else:
                unplugged = how == "unplugged"
                cut = (
                    cluster.network.unplugged(agent)
                    if unplugged
                    else cluster.network.partition(agent, how)  # type: ignore[arg-type]
                )
                kind = "partition inwards" if how == "in" else "partition"
                with cluster.fault(kind, [agent]), cut:
                    time.sleep(seconds)
            _settle(cluster, token)


@contextmanager
def _proxied(run: Run, cluster: Cluster) -> Iterator[dict[str, Proxy]]:
    """Agents whose connections go through a proxy each."""
    cluster.start_broker()
    with ExitStack() as stack:
        proxies: dict[str, Proxy] = {}
        for name in ("host1", "host2"):
            proxy = proxies[name] = Proxy(cluster.port, run.rng.randrange(1 << 30))
            stack.callback(proxy.close)
            cluster.begin_agent(name, 2, broker=proxy.address)
        cluster.start_client("main")
        cluster.wait_for_slots(WORKERS)
        if run.load != IDLE:
            cluster.start_client("load", run.load)
        yield proxies
        cluster.finish()


def half_open(run: Run) -> None:
    """Connections that stand and pass nothing, one way or both; that are reset; that drip."""
    with run.cluster() as cluster, _proxied(run, cluster) as proxies:
        for number in run.repetitions():
            run.moment(0.2)
            token = f"victim{number}"
            agent = _victim(cluster, token)
            proxy = proxies[agent]
            how = run.pick("how", ["both", "up", "down", "reset", "slices", "latency", "gone"])
            if how in ("both", "up", "down"):
                ways: tuple[Way, ...] = ("up", "down") if how == "both" else (how,)  # type: ignore[assignment]
                seconds = run.pick("seconds", [1.0, 2.5, 6.0])
                kind = "partition inwards" if how == "down" else "partition"
                with cluster.fault(kind, [agent]), proxy.holding(*ways):
                    time.sleep(seconds)
            elif how == "reset":
                with cluster.fault("reset"):
                    proxy.reset_all()
            elif how == "gone":
                with cluster.fault("cut", [agent]), proxy.refusing():
                    time.sleep(run.rng.uniform(0.1, 3.0))
            else:
                with cluster.fault(how):
                    proxy.slice_bytes = 7 if how == "slices" else 0
                    proxy.delay_s = 0.1 if how == "latency" else 0.0
                    time.sleep(2.0)
                    proxy.slice_bytes, proxy.delay_s = 0, 0.0
            _settle(cluster, token)


# --- R9: flapping ---------------------------------------------------------------------------------


def flapping(run: Run) -> None:
    """The link comes and goes, and then every connection is reset again and again."""
    with run.cluster() as cluster, _proxied(run, cluster) as proxies:
        for number in run.repetitions():
            token = f"victim{number}"
            agent = _victim(cluster, token)
            proxy = proxies[agent]
            before = proxy.connections
            with cluster.fault("cut", [agent]):
                for _ in range(run.rng.randint(2, 5)):
                    with proxy.refusing():
                        run.moment(1.2)
                    run.moment(1.2)
            with cluster.fault("reset", [agent]):
                storm_until = time.monotonic() + 2.0
                while time.monotonic() < storm_until:
                    proxy.reset_all()
                    time.sleep(0.02)
            attempts = proxy.connections - before
            if attempts > 150:
                run.tally.errors.append(f"{attempts} connections within some 8 s")
            _settle(cluster, token)
            open_files = len(list(Path(f"/proc/{cluster.broker.pid}/fd").iterdir()))
            if open_files > 200:
                run.tally.errors.append(f"the broker has {open_files} files open")


# --- R15: names -----------------------------------------------------------------------------------


def address_changes(run: Run) -> None:
    """The broker comes back at another address under the same name; then names cannot be asked."""
    with run.cluster(("broker", "other", "host1", "host2", "client")) as cluster:
        net = cluster.network
        assert net is not None
        net.set_hosts({"queue.example": net.address("broker")})
        net.set_resolver("10.77.0.250")  # nobody has this address: questions vanish
        cluster.address = f"tcp://queue.example:{cluster.port}"
        cluster.start(run.load)
        where = "broker"
        for number in run.repetitions():
            run.moment(0.2)
            where = "other" if where == "broker" else "broker"
            token = f"victim{number}"
            _victim(cluster, token)
            with cluster.fault("kill broker", moved=where):
                cluster.broker.kill()
                net.set_hosts({} if number % 3 == 2 else {"queue.example": net.address(where)})
                cluster.broker_node = where
                cluster.start_broker()
                if number % 3 == 2:
                    time.sleep(3.0)  # the name is unknown, and whoever asks waits in vain
                    net.set_hosts({"queue.example": net.address(where)})
            began = time.monotonic()
            await_true(lambda: cluster.slots() == WORKERS, 30, "everybody at the new address")
            run.tally.recovery_s.append(time.monotonic() - began)
            _settle(cluster, token)


# --- R17: descriptors -----------------------------------------------------------------------------


def silent_connections(run: Run) -> None:
    """A broker that may open 256 files, and 10 000 connections that never say a word."""
    with run.cluster() as cluster:
        cluster.start(run.load, prefix=["prlimit", "--nofile=256:256"])
        for number in run.repetitions():
            token = f"victim{number}"
            _victim(cluster, token)
            opened: list[socket.socket] = []
            with cluster.fault("silent connections"):
                try:
                    for _ in range(10_000):
                        one = socket.socket()
                        one.setblocking(False)
                        opened.append(one)
                        one.connect_ex(("127.0.0.1", cluster.port))
                    known = f"known{number}"
                    cluster.submit("work", known)  # who is connected goes on
                    cluster.wait_answered(known, 10.0)
                    time.sleep(1.0)
                finally:
                    for one in opened:
                        one.close()
            began = time.monotonic()
            fresh = cluster.start_client("fresh", alias=f"fresh{number}")  # 30 s at most
            run.tally.recovery_s.append(time.monotonic() - began)
            fresh.order(do="flood", count=10)
            if cluster.broker.process.poll() is not None:
                run.tally.errors.append("the broker ended")
            _settle(cluster, token)
    run.note("R17: recovery is from the end of the flood until a new client is welcome")


# --- R18: bad lines -------------------------------------------------------------------------------

WEATHERS: tuple[dict[str, float], ...] = (
    {"loss": 0.05},
    {"delay_s": 0.2, "jitter_s": 0.1},
    {"delay_s": 0.01, "reorder": 0.25},
    {"duplicate": 0.05, "corrupt": 0.001},
    {"bits_per_s": 1e6},
    {"loss": 0.05, "delay_s": 0.2, "jitter_s": 0.1, "reorder": 0.25, "duplicate": 0.05,
     "corrupt": 0.001, "bits_per_s": 1e6},
)  # fmt: skip


def bad_lines(run: Run) -> None:
    """Packets of all hosts are lost, late, out of order, doubled, damaged, or too many."""
    with run.cluster(HOSTS, finish_s=120) as cluster:
        assert cluster.network is not None
        with Weather(cluster.network, "broker", run.rng.randrange(1 << 30)) as weather:
            cluster.start(run.load)
            for number in run.repetitions():
                kind = run.pick("weather", WEATHERS)
                name = " ".join(f"{key}={value:g}" for key, value in kind.items())
                with cluster.fault(f"weather: {name}" if len(kind) < 3 else "weather: all of it"):
                    weather.set(**kind)
                    for n in range(10):
                        token = f"victim{number}.{n}"
                        cluster.submit("work", token)
                        cluster.wait_answered(token, 60.0)
                    run.moment(6.0)
                weather.set()
            cluster.finish(120)
    packets = weather.passed + weather.lost
    run.note(
        f"R18, {run.load}: of {packets:,} packets {weather.lost:,} were lost, "
        f"{weather.overtook:,} overtook others, {weather.doubled:,} were doubled, "
        f"{weather.damaged:,} damaged"
    )


ROWS = (
    Row("R8", "partitions, one way and both", partitions, repeat=8, why_not=network.why_missing),
    Row("R8x", "half-open, reset, slow (proxy)", half_open, repeat=8),
    Row("R9", "flapping link, RST storms", flapping, repeat=4),
    Row("R15", "broker at another address, DNS gone", address_changes, (IDLE, RATE), 6,
        network.why_missing),
    Row("R17", "10 k silent connections, 256 files", silent_connections, (IDLE, RATE), 4),
    Row("R18", "loss, delay, disorder, damage", bad_lines, (RATE, SATURATED), 6, why_no_weather),
)  # fmt: skip
