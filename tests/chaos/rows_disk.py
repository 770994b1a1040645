"""Rows about the journal's disk: R4p (a power cut), R12 (full), R12e (EIO, read-only, slow).

Rules of this file: what a disk may do to a journal, it does; that rejected tasks never run, and
accepted ones are kept, the checker sees. R4p and R12e load `disk_shim.c` into the broker.
"""

from __future__ import annotations

import shutil
import time
from pathlib import Path
from typing import Any

from tests.chaos.cluster import Cluster
from tests.chaos.disk import TROUBLES, Disk, why_no_disk
from tests.chaos.mounts import full_disk, small_disk, why_no_mounts
from tests.chaos.parts import READY_S, RowError, await_true
from tests.chaos.run import IDLE, RATE, Row, Run

WORKERS = 4
FULL = "ok|TaskRejected|QueueFull"
EX_IOERR = 74  # what the broker ends with if its journal cannot be used

# --- R4p: a power cut -----------------------------------------------------------------------------


def power_cut(run: Run) -> None:
    """The broker's machine: what was not synced is gone, torn, or there. A client dies too, so that
    nobody can submit again what was accepted; another one asks for the results."""
    with run.cluster() as cluster, Disk(cluster.folder, run.rng.randrange(1 << 30)) as disk:
        config: dict[str, Any] = {"journal": str(disk.journal), "prefix": disk.prefix}
        cluster.start(run.load, ordered=True, **config)
        for number in run.repetitions():
            disk.set(delay_ms=run.pick("delay", [0, 20, 100, 300]))
            asker = cluster.start_client(f"asker{number}")
            ids = {
                token: asker.order(do="submit", function="hold", token=token, args=[f"{number}.go"])
                for token in (f"victim{number}.{n}" for n in range(6))
            }
            asker.order(do="flush")
            if run.pick("ended", [True, False]):
                cluster.release(f"{number}.go")
            for n in range(20):  # what is under way when it strikes
                cluster.submit("work", f"small{number}.{n}")
            run.moment(0.3)
            with cluster.fault("kill broker", how="power cut"):
                asker.kill()
                cluster.broker.kill()
                cluster.clients.remove(asker)
                disk.cut_power(run.rng)
                if run.pick("again", [True, False, False]):
                    _cut_while_it_starts(run, cluster, disk, config)
                began = time.monotonic()
                cluster.start_broker(**config)
                run.tally.recovery_s.append(time.monotonic() - began)
            disk.set(delay_ms=0)
            cluster.release(f"{number}.go")
            answered = [token for token in ids if cluster.lines(token, what="ok")]
            for token in ids:
                if token not in answered:
                    cluster.clients[0].order(do="fetch", task_id=ids[token], token=token)
            cluster.wait_for_slots(WORKERS + 1)
        cut = disk.total
        run.note(
            f"R4p, {run.load}: of {cut.sectors:,} sectors that no sync covered {cut.lost:,} were "
            f"lost, {cut.torn} files torn, {cut.names_lost} of {cut.names} changes of names undone"
        )


def _cut_while_it_starts(run: Run, cluster: Cluster, disk: Disk, config: dict[str, Any]) -> None:
    """The power goes again while the next broker opens its journal, and takes it over."""
    writes = disk.counts()["writes"] + run.rng.randint(1, 6)
    broker = cluster.begin_broker(**config)
    await_true(
        lambda: disk.counts()["writes"] >= writes or broker.has_told("ready"),
        READY_S, "the new broker to write",
    )  # fmt: skip
    broker.kill()
    disk.cut_power(run.rng)


# --- R12: the disk is full ------------------------------------------------------------------------


def disk_full(run: Run) -> None:
    """The journal is on a disk of 1 MiB that something else fills; then there is room again."""
    with small_disk(DISK_MIB) as disk, run.cluster(finish_s=90.0) as cluster:
        config: dict[str, Any] = {"journal": str(disk / "journal"), "journal_size": JOURNAL_BYTES}
        cluster.start(IDLE, **config)
        if run.load != IDLE:
            cluster.start_client("load", run.load, expect=FULL)
        for number in run.repetitions():
            run.moment(0.3)
            with cluster.fault("disk full"), full_disk(disk):
                for n in range(20):
                    cluster.submit("work", f"full{number}.{n}", 0.0, expect=FULL)
                time.sleep(run.rng.uniform(0.2, 1.5))
                if cluster.broker.process.poll() is not None:
                    raise RowError(f"the broker ended: {cluster.broker.tail()}")
            began = time.monotonic()
            _await_room(cluster, f"room{number}", disk)
            run.tally.recovery_s.append(time.monotonic() - began)
            if run.pick("kill", [True, False]):
                cluster.restart_broker(**config)
            cluster.wait_for_slots(WORKERS)
    run.note("R12: recovery is from room on the disk until a task is accepted again")


JOURNAL_BYTES = 1 << 20
DISK_MIB = 4  # a journal that is as large as its disk fills that with its own log, and stays full


def _await_room(cluster: Cluster, name: str, disk: Path) -> None:
    for n in range(200):
        token = f"{name}.{n}"
        cluster.submit("work", token, 0.0, expect=FULL)
        cluster.wait_answered(token)
        if cluster.lines(token, what="ok"):
            return
        time.sleep(0.05)
    files = {path.name: path.stat().st_size for path in disk.iterdir()}
    free = shutil.disk_usage(disk).free
    raise RowError(f"nothing is accepted although {free} bytes are free: {files}")


# --- R12e: the disk fails -------------------------------------------------------------------------


def disk_fails(run: Run) -> None:
    """EIO from writes, from syncs, or now and then; read-only; syncs of two seconds. Sometimes the
    broker is killed meanwhile, with or without a power cut, and cannot start before it is over."""
    with (
        run.cluster(finish_s=90.0) as cluster,
        Disk(cluster.folder, run.rng.randrange(1 << 30)) as disk,
    ):
        config: dict[str, Any] = {"journal": str(disk.journal), "prefix": disk.prefix}
        cluster.start(IDLE, **config)
        if run.load != IDLE:
            cluster.start_client("load", run.load, expect=FULL)
        for number in run.repetitions():
            run.moment(0.3)
            kind = run.pick("kind", list(TROUBLES))
            slow = kind == "slow syncs"
            token = f"victim{number}"
            cluster.submit("hold", token, f"{token}.go")
            cluster.wait_started(token)
            with cluster.fault(f"disk: {kind}"), disk.failing(**TROUBLES[kind]):
                cluster.release(f"{token}.go")
                for n in range(20):
                    expect = "ok" if slow else FULL
                    cluster.submit("work", f"fault{number}.{n}", 0.0, expect=expect)
                time.sleep(run.rng.uniform(0.2, 5.0 if slow else 1.5))
                if cluster.broker.process.poll() is not None:
                    raise RowError(f"the broker ended: {cluster.broker.tail()}")
                if run.pick(f"kill {kind}", [True, False]):
                    _killed_meanwhile(run, cluster, disk, config)
            if cluster.broker.process.poll() is not None:
                cluster.start_broker(**config)
            began = time.monotonic()
            _await_room(cluster, f"room{number}", disk.journal.parent)
            run.tally.recovery_s.append(time.monotonic() - began)
            cluster.wait_answered(token)
            if run.pick("kill", [True, False]):
                _kill(run, cluster, disk)
                cluster.start_broker(**config)
            cluster.wait_for_slots(WORKERS)
        counts = disk.counts()
        run.note(
            f"R12e, {run.load}: {counts['failed']:,} of {counts['writes']:,} writes and "
            f"{counts['syncs']:,} syncs failed, {counts['slowed']:,} syncs were slow"
        )


def _kill(run: Run, cluster: Cluster, disk: Disk) -> None:
    """SIGKILL; the disk keeps everything, or only what was synced."""
    cluster.broker.kill()
    if run.pick("power cut", [True, False]):
        disk.cut_power(run.rng)
    else:
        disk.settle()


def _killed_meanwhile(run: Run, cluster: Cluster, disk: Disk, config: dict[str, Any]) -> None:
    """While the disk fails a new broker starts, or says in one sentence why it cannot."""
    with cluster.fault("kill broker"):
        _kill(run, cluster, disk)
        code = cluster.try_broker(**config)
    if code is not None:
        said, log = cluster.broker.refusal(), cluster.broker.tail()
        if code != EX_IOERR or "cannot open the journal" not in said or "Traceback" in log:
            run.tally.errors.append(f"the start ended with {code}: {said!r}; {log}")
        disk.settle()


ROWS = (
    Row("R4p", "power cut under the journal", power_cut, why_not=why_no_disk),
    Row("R12", "disk full under the journal", disk_full, (IDLE, RATE), 6, why_no_mounts),
    Row("R12e", "EIO, read-only, slow under the journal", disk_fails, (IDLE, RATE), 10,
        why_no_disk),
)  # fmt: skip
