"""What an agent is told when it starts: the JSON object of `python -m evener_worker '<json>'`."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass, fields, replace
from typing import Any, cast

from evener_wire.errors import UsageError
from evener_wire.limits import SECOND_NS, SLOTS_MAX
from evener_worker.recycling import Limits


@dataclass(frozen=True, slots=True)
class AgentConfig:
    """`workers` 0: from `EVENER_WORKERS`, or one per usable CPU. `name` empty: the host's name."""

    app: str
    broker: str
    workers: int = 0
    queues: tuple[str, ...] = ("default",)
    name: str = ""
    insecure: bool = False
    ready_fd: int | None = None
    lifeline_fd: int | None = None
    drain_seconds: int = 30
    log_level: str = "info"
    prefix: bool = True
    # How long a worker process may take until it is ready (0: for ever), and for its stop hooks.
    start_seconds: float = 600.0
    stop_seconds: float = 5.0
    # When a worker process is replaced; 0: never.
    max_tasks_per_worker: int = 0
    max_worker_age_seconds: float = 0.0
    max_worker_memory: int = 0
    # How long a worker with nothing to do may leave a ping unanswered; 0: it is not pinged.
    ping_seconds: float = 30.0
    reload: bool = False  # replace workers when files of the app change

    def __post_init__(self) -> None:
        if not 0 <= self.workers <= SLOTS_MAX:
            raise UsageError(f"workers is {self.workers}; 1 to {SLOTS_MAX:,} can be started")
        limits = self.max_tasks_per_worker, self.max_worker_age_seconds, self.max_worker_memory
        if min(*limits, self.start_seconds, self.stop_seconds, self.ping_seconds) < 0:
            raise UsageError("a limit of workers is negative; leave it out for none")
        if not self.queues:
            raise UsageError("queues is empty; name at least one, such as default")

    @property
    def worker_limits(self) -> Limits:
        """When worker processes are replaced."""
        age_ns = int(self.max_worker_age_seconds * SECOND_NS)
        return Limits(
            self.max_tasks_per_worker,
            age_ns,
            self.max_worker_memory,
            int(self.start_seconds * SECOND_NS),
            int(self.stop_seconds * SECOND_NS),
        )

    @property
    def trusted(self) -> bool:
        """Whether pickles may come from this broker: it is on this host, or somebody said so."""
        return self.insecure or is_loopback(self.broker)

    def settled(self) -> AgentConfig:
        """With the defaults of this host in place."""
        name = self.name or "".join(
            c if c.isprintable() and c != " " else "-" for c in os.uname().nodename
        )
        return replace(self, workers=self.workers or _workers_here(), name=name)


def _workers_here() -> int:
    from evener_worker.cpus import usable_cpus  # here, because most agents are told a number

    text = os.environ.get("EVENER_WORKERS", "")
    if not text or text == "auto":
        return min(usable_cpus(), SLOTS_MAX)
    try:
        workers = int(text)
    except ValueError:
        workers = 0
    if not 1 <= workers <= SLOTS_MAX:
        hint = "; 0 is for evener.LocalCluster, which then starts none" if text == "0" else ""
        raise UsageError(f"EVENER_WORKERS is {text!r}; give a number from 1 to {SLOTS_MAX:,}{hint}")
    return workers


def is_loopback(address: str) -> bool:
    """Whether an address can only be reached from this host."""
    scheme, _, rest = address.partition("://")
    if scheme in ("ipc", "inproc"):
        return True
    host = rest.rpartition(":")[0]
    parts = host.split(".")
    # `127.evil.example` is a name like any other.
    ipv4 = len(parts) == 4 and parts[0] == "127" and all(part.isdecimal() for part in parts)
    return ipv4 or host in ("localhost", "[::1]", "::1")


def config_from_json(text: str) -> AgentConfig:
    """Read the argument of the entry point. Raises UsageError."""
    try:
        given: Any = json.loads(text)
    except ValueError as error:
        raise UsageError(f"the argument is not JSON: {error}") from error
    if type(given) is not dict:
        raise UsageError("the argument is not a JSON object")
    values = cast("dict[str, Any]", given)
    known = {field.name for field in fields(AgentConfig)}
    unknown = sorted(values.keys() - known)
    if unknown:
        raise UsageError(f"unknown key {unknown[0]!r}; known: {', '.join(sorted(known))}")
    if "queues" in values:
        values["queues"] = tuple(values["queues"])
    try:
        return AgentConfig(**values)
    except TypeError as error:
        raise UsageError(f"app and broker are needed ({error})") from error
