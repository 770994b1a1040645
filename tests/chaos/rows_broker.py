"""Rows about the broker: R4 and R4d (killed), R10 (nobody reads), R11 (all come back), R13 (no
processor time), R19 (other versions). R4p and R12: `rows_disk.py`.

Rules of this file: `d` in the name of a row means that the broker keeps a journal.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.chaos.cluster import Cluster
from tests.chaos.groups import Group
from tests.chaos.parts import Part, await_true, import_path, send_signal
from tests.chaos.report import percentile, seconds
from tests.chaos.run import IDLE, RATE, NotRun, Row, Run
from tests.support import ROOT

WORKERS = 4

# --- R4: the broker is killed ---------------------------------------------------------------------


def kill_broker(run: Run) -> None:
    """At random instants; what clients hold and agents run meets at the next one."""
    _kill_broker(run, durable=False)


def kill_durable_broker(run: Run) -> None:
    """The same with a journal: now nothing that had ended runs again."""
    _kill_broker(run, durable=True)


def _kill_broker(run: Run, *, durable: bool) -> None:
    with run.cluster() as cluster:
        config: dict[str, Any] = {"journal": str(cluster.folder / "journal")} if durable else {}
        cluster.start(run.load, ordered=True, **config)
        ready: list[float] = []
        for number in run.repetitions():
            tokens = [f"victim{number}.{n}" for n in range(3)]
            for token in tokens:
                cluster.submit("hold", token, f"{number}.go")
            for token in tokens[: run.rng.randint(0, 3)]:
                cluster.wait_started(token)
            run.moment(0.5)
            ready.append(cluster.restart_broker(run.rng.choice([0.0, 0.0, 0.3, 1.0]), **config))
            run.moment(0.3)
            cluster.release(f"{number}.go")
            for token in tokens:
                cluster.wait_answered(token)
            cluster.wait_for_slots(WORKERS + 1)
        run.note(
            f"{run.row.name}, {run.load}: a new broker was ready after "
            f"{seconds(percentile(ready, 0.5))}, at most {seconds(max(ready))}"
        )


# --- R10: nobody reads ----------------------------------------------------------------------------

OWED = 100_000


def nobody_reads(run: Run) -> None:
    """A client with many results to come stands still, then an agent; the others notice nothing."""
    with run.cluster(finish_s=180.0) as cluster:
        cluster.start(run.load)
        for number in run.repetitions():
            cluster.clients[0].order(do="latencies")
            calm = _probe(cluster, f"calm{number}")
            deaf = cluster.start_client("deaf", alias=f"deaf{number}")
            for n in range(WORKERS):  # nothing of it ends before that client stands still
                cluster.submit("hold", f"hold{number}.{n}", f"{number}.go")
                cluster.wait_started(f"hold{number}.{n}")
            for _ in range(10):
                deaf.order(do="flood", count=OWED // 10)
            with cluster.fault("client never reads"):
                deaf.stop()
                cluster.release(f"{number}.go")
                await_true(lambda: _owed(cluster, "open") == 0, 120, "the work to be done")
                meanwhile = _probe(cluster, f"while{number}")
                owed = _owed(cluster, "unfetched")
                deaf.go_on()
            name = sorted(cluster.agents)[number % len(cluster.agents)]
            with cluster.fault("pause agent", [name]):
                cluster.agents[name].stop()
                for n in range(20):
                    cluster.submit("work", f"large{number}.{n}")
                time.sleep(5.0)
                cluster.agents[name].go_on()
            cluster.wait_for_slots(WORKERS)
            deaf.send(do="finish", seconds=120.0)
            deaf.process.wait(150)
            run.note(
                f"R10, {run.load}: p50 of single tasks {seconds(percentile(calm, 0.5))} before, "
                f"{seconds(percentile(meanwhile, 0.5))} while {owed:,} results waited for a client"
            )
            rss_mib = _rss(cluster.broker) >> 20
            if rss_mib > 2_048:
                run.tally.errors.append(f"the broker takes {rss_mib} MiB")


def _probe(cluster: Cluster, name: str, count: int = 30) -> list[float]:
    found: list[float] = []
    for n in range(count):
        token = f"{name}.{n}"
        cluster.submit("work", token)
        cluster.wait_answered(token)
    found += cluster.clients[0].order(do="latencies")
    return found


def _owed(cluster: Cluster, which: str) -> int:
    """Tasks of the client that stands still: "open", or ended and "unfetched"."""
    status = cluster.clients[0].order(do="query", what="status")
    return sum(client[which] for client in status["clients"] if client["name"] == "deaf")


def _rss(part: Part) -> int:
    return int(Path(f"/proc/{part.pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


# --- R11: everybody at once -----------------------------------------------------------------------


def all_come_back(run: Run) -> None:
    """The broker of 1 000 simulated agents on real sockets, and 200 clients, is killed."""
    if not (ROOT / "tests" / "recovery" / "__main__.py").exists():
        raise NotRun("tests/recovery is not there")
    for number in run.repetitions():
        done = subprocess.run(
            [sys.executable, "-m", "tests.recovery", "--agents", "1000", "--clients", "200",
             "--kills", "1", "--tasks", "10", "--seed", str(run.rng.randrange(1 << 30) + number)],
            cwd=ROOT, env=os.environ | {"PYTHONPATH": import_path()}, capture_output=True,
            text=True, timeout=300,
        )  # fmt: skip
        run.tally.faults["kill broker"] += 1
        for line in done.stdout.splitlines():
            words = line.split()
            if len(words) > 2 and words[0] == "kill" and words[2].replace(".", "").isdigit():
                run.tally.recovery_s.append(float(words[2]))
            elif line.startswith("tasks:"):
                run.tally.figures["tasks"] += int(words[1].rstrip(","))
        if done.returncode != 0:
            text = (done.stdout + done.stderr)[-600:]
            run.tally.errors.append(f"python -m tests.recovery: {text}")
    run.note("R11: judged by tests/recovery; recovery is until every agent and client is back")


# --- R13: no processor time -----------------------------------------------------------------------


def starved(run: Run) -> None:
    """All slots spin, beside four busy processes for each processor, on a quarter of one."""
    with Group(f"r13{run.load}", cpu=0.25) as group, run.cluster(finish_s=300.0) as cluster:
        cluster.start(run.load)
        own = [cluster.broker, *cluster.agents.values(), *cluster.clients]
        pids = [part.pid for part in own]
        pids += [pid for agent in cluster.agents.values() for pid in agent.workers()]
        for number in run.repetitions():
            with _hogs(4 * (os.cpu_count() or 1)) as hogs:
                with cluster.fault("no processor time"):
                    for pid in (*pids, *hogs):
                        group.take(pid)
                    for slot in range(WORKERS):
                        cluster.submit("spin", f"spin{number}.{slot}", run.starve_s / 2)
                    time.sleep(run.starve_s)
                group.release()
            cluster.wait_for_slots(WORKERS)
    run.note(f"R13: {run.starve_s:g} s each, not an hour; a quarter of a processor for all")


@contextmanager
def _hogs(count: int) -> Iterator[list[int]]:
    made = [
        subprocess.Popen([sys.executable, "-c", "while True: pass"], stdin=subprocess.DEVNULL)
        for _ in range(count)
    ]
    try:
        yield [process.pid for process in made]
    finally:
        for process in made:
            process.kill()
            process.wait()


# --- R19: other versions --------------------------------------------------------------------------


def rolling_upgrade(run: Run) -> None:
    """From the older version to this one, part by part under load, and back again."""
    with _older_version() as (old, revision), run.cluster() as cluster:
        roles = {"broker": old, "agent": old, "main": old, "load": old}
        cluster.roots = dict(roles)
        cluster.start(run.load)
        for _ in run.repetitions():
            for target in (ROOT, old):
                for name in sorted(cluster.agents):
                    cluster.roots["agent"] = target
                    _replace_agent(cluster, name)
                cluster.roots["broker"] = target
                cluster.restart_broker()
                cluster.wait_for_slots(WORKERS)
    run.note(f"R19: the older version is {revision}")
    with run.cluster() as cluster:
        _downgrades(run, cluster)


def _downgrades(run: Run, cluster: Cluster) -> None:
    """A journal that a newer evener has written: this one leaves it alone, and says so. Then, as if
    the newer one were back, everything in it goes on."""
    journal = cluster.folder / "journal"
    config: dict[str, Any] = {"journal": str(journal)}
    cluster.start(run.load, **config)
    for number, where in enumerate(("in the file", "in the log")):
        tokens = [f"kept{number}.{n}" for n in range(6)]
        for token in tokens:
            cluster.submit("hold", token, f"kept{number}.go")
        cluster.clients[0].order(do="flush")
        with cluster.fault("kill broker", how=f"a journal from the future, {where}"):
            cluster.broker.kill()
            version = _set_version(journal, 1, where)
            before = _files_of(journal)
            code = cluster.try_broker(**config)
            told, log = cluster.broker.refusal(), cluster.broker.tail()
            if code != EX_DATAERR or f"has format {version}, and this version" not in told:
                run.tally.errors.append(f"a newer journal: ended with {code}: {told!r}; {log}")
            if "Traceback" in log or _files_of(journal) != before:
                run.tally.errors.append(f"a newer journal was not left alone: {log}")
            _set_version(journal, -1, "in the file")
            cluster.start_broker(**config)
        cluster.release(f"kept{number}.go")
        for token in tokens:
            cluster.wait_answered(token)
        cluster.wait_for_slots(WORKERS)
    run.note("R19: refused journals of a newer format: in the file, and in its log alone")


EX_DATAERR = 65  # what the broker ends with if a journal is none that it reads
_SET_VERSION = """
import os, sqlite3, sys
db = sqlite3.connect(sys.argv[1], isolation_level=None)
version = db.execute("PRAGMA user_version").fetchone()[0] + int(sys.argv[2])
db.execute("PRAGMA wal_autocheckpoint=0")
db.execute(f"PRAGMA user_version={version}")
print(version, flush=True)
if sys.argv[3] == "in the log":
    os._exit(0)
db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
"""


def _set_version(journal: Path, change: int, where: str) -> int:
    """Write another format into a journal: as a program that ends well, or as one that dies."""
    done = subprocess.run(
        [sys.executable, "-c", _SET_VERSION, str(journal), str(change), where],
        capture_output=True, text=True, timeout=60, check=True,
    )  # fmt: skip
    return int(done.stdout)


def _files_of(journal: Path) -> dict[str, bytes]:
    """What is in a journal and in its log; not in the shared memory of whoever had it open."""
    names = (journal.name, f"{journal.name}-wal")
    return {path.name: path.read_bytes() for path in journal.parent.iterdir() if path.name in names}


def _replace_agent(cluster: Cluster, name: str) -> None:
    old = cluster.agents.pop(name)
    with cluster.fault("stop agent", [name]):
        send_signal(old.pid, signal.SIGTERM)
        old.process.wait(40)
        cluster.begin_agent(name)
        cluster.wait_for_slots(WORKERS)


@contextmanager
def _older_version() -> Iterator[tuple[Path, str]]:
    """A folder with the last commit that spoke another protocol, else with one of long ago."""
    if shutil.which("git") is None:
        raise NotRun("git is not installed, so there is no older version")
    revision = os.environ.get("CHAOS_OLDER") or _older_revision()
    with tempfile.TemporaryDirectory(prefix="evener-older-") as name:
        packed = subprocess.run(
            ["git", "-C", str(ROOT), "archive", revision, "wire", "broker", "client", "worker"],
            capture_output=True,
        )
        if packed.returncode != 0:
            raise NotRun(f"no older version in git: {packed.stderr.decode()[-200:]}")
        subprocess.run(["tar", "x", "-C", name], input=packed.stdout, check=True)
        yield Path(name), revision


def _older_revision() -> str:
    """The newest commit before `PROTOCOL_MAX` was last changed; none: the first with a demo."""

    def git(*arguments: str) -> list[str]:
        done = subprocess.run(["git", "-C", str(ROOT), *arguments], capture_output=True, text=True)
        if done.returncode != 0:
            raise NotRun(f"this is no git checkout: {done.stderr.strip()[-200:]}")
        return done.stdout.split()

    changed = git("log", "--format=%h", "-G^PROTOCOL_MAX", "--", "wire/evener_wire/limits.py")
    if len(changed) > 1:
        return git("rev-parse", "--short", f"{changed[0]}^")[0]
    return git("log", "--format=%h", "--diff-filter=A", "--", "tests/integration/test_demo.py")[-1]


ROWS = (
    Row("R4", "kill -9 of the broker, no journal", kill_broker),
    Row("R4d", "kill -9 of the broker, journal", kill_durable_broker),
    Row("R10", "nobody reads, 100 k results owed", nobody_reads, (IDLE, RATE), 1),
    Row("R11", "broker of 1 000 agents killed", all_come_back, (IDLE,), 3),
    Row("R13", "no processor time", starved, repeat=1, why_not=lambda: Group.why_missing("cpu")),
    Row("R14", "steps of the clock, suspend", all_come_back, (IDLE,),
        why_not=lambda: "in the simulation only; a suspend needs a virtual machine"),
    Row("R16", "a pair of brokers", all_come_back, (IDLE,), why_not=lambda: "there is no pair yet"),
    Row("R20", "24 hours", all_come_back, (IDLE,),
        why_not=lambda: "takes a day; `--rows R1,R2,R9 --repeat 100000 --minutes 1440` comes near"),
    Row("R19", "older version, rolling", rolling_upgrade, (IDLE, RATE), 2),
)  # fmt: skip
