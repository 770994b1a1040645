"""What an agent is told when it starts: the JSON object of `python -m evener_worker '<json>'`."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass, fields, replace
from typing import Any, cast

from evener_wire.errors import UsageError
from evener_wire.limits import SLOTS_MAX


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

    def __post_init__(self) -> None:
        if not 0 <= self.workers <= SLOTS_MAX:
            raise UsageError(f"workers is {self.workers}; 1 to {SLOTS_MAX:,} can be started")
        if not self.queues:
            raise UsageError("queues is empty; name at least one, such as default")

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
        raise UsageError(f"EVENER_WORKERS is {text!r}; give a number from 1 to {SLOTS_MAX:,}")
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
