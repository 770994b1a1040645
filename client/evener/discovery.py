"""Which broker to talk to: the one that was named, or the one that runs on this machine.

Rules of this file: reading only. A broker writes `broker-<pid>.json` into a folder of its user;
files that somebody else could have written are not believed, because whoever chooses the broker
chooses what runs here. Files of processes that are gone are passed over.
"""

from __future__ import annotations

import json
import os
import re
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final, NamedTuple, cast

from evener_wire.errors import UsageError

_FILE_BYTES_MAX: Final = 64 * 1024
_PORT_MAX: Final = 65_535

PORT_DEFAULT: Final = 7450
"""Where a broker listens, unless told otherwise."""

# An IPv6 address stands in brackets, or nobody could tell its end from the port.
_TCP: Final = re.compile(
    r"(?:tcp://)?(?P<host>\[[^\s\[\]/]+\]|[^\s:\[\]/]+)(?::(?P<port>[0-9]{1,5}))?"
)


class LocalBroker(NamedTuple):
    """A broker that runs on this machine, as its file says."""

    address: str
    pid: int
    epoch: int
    started: float


def find_broker(address: str | None = None) -> str:
    """The address given, else that of environment or file, else that of the newest local broker.

    Raises `UsageError` when there is none, or when the address is not one.
    """
    if address:
        return check_address(address, "address")
    from evener.config import settings

    named = settings().find("client.broker")
    if named is not None:
        return str(named.value)
    running = local_brokers()
    if running:
        return running[0].address
    raise UsageError(
        "no broker was named, and none runs on this machine. Start one: evener up module:app; or "
        'name one: Client("tcp://host:7450") or EVENER_BROKER; or let Python start one for you: '
        "evener.LocalCluster(workers=4)"
    )


def check_address(address: str, source: str) -> str:
    """An address as `tcp://host:port` or `ipc://path`; `host:port` and `host` are completed.

    Raises `UsageError`, naming where it comes from.
    """
    if address.startswith("ipc://") and len(address) > len("ipc://"):
        return address
    match = _TCP.fullmatch(address)
    port = int((match and match["port"]) or PORT_DEFAULT)
    if match is None or not match["host"].isprintable() or not 1 <= port <= _PORT_MAX:
        raise UsageError(
            f"{source} {address!r} is no address: write tcp://host:port, "
            f"such as tcp://127.0.0.1:{PORT_DEFAULT}"
        )
    return f"tcp://{match['host']}:{port}"


def is_loopback(address: str) -> bool:
    """Whether an address can only be reached from this machine."""
    scheme, _, rest = address.partition("://")
    if scheme in ("ipc", "inproc"):
        return True
    host = rest.rpartition(":")[0].strip("[]")
    if host in ("localhost", "::1"):
        return True
    parts = host.split(".")
    return len(parts) == 4 and parts[0] == "127" and all(part.isdecimal() for part in parts)


def runtime_folder() -> Path:
    """`EVENER_RUNTIME_DIR`, else `evener` in `XDG_RUNTIME_DIR`, else one of this user in /tmp."""
    if chosen := os.environ.get("EVENER_RUNTIME_DIR"):
        return Path(chosen)
    if base := os.environ.get("XDG_RUNTIME_DIR"):
        return Path(base) / "evener"
    return Path("/tmp") / f"evener-{os.getuid()}"


def local_brokers(folder: Path | None = None) -> list[LocalBroker]:
    """The brokers that run on this machine, newest first."""
    found = [broker for path in _files(folder or runtime_folder()) if (broker := _read(path))]
    return sorted(found, key=lambda broker: (broker.started, broker.epoch), reverse=True)


def _files(folder: Path) -> Iterator[Path]:
    try:
        facts = folder.lstat()
        if not stat.S_ISDIR(facts.st_mode) or not _is_ours(facts):
            return
        yield from sorted(folder.glob("broker-*.json"))
    except OSError:
        return


def _is_ours(facts: os.stat_result) -> bool:
    """Whether nobody but this user (or root) can have written it."""
    return facts.st_uid in (os.getuid(), 0) and not facts.st_mode & (stat.S_IWGRP | stat.S_IWOTH)


def _read(path: Path) -> LocalBroker | None:
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK)
        with os.fdopen(descriptor, "rb") as file:
            facts = os.fstat(descriptor)
            if not stat.S_ISREG(facts.st_mode) or not _is_ours(facts):
                return None
            said: Any = json.loads(file.read(_FILE_BYTES_MAX))
    except (OSError, ValueError, RecursionError):
        return None
    broker = _believe(said)
    return broker if broker is not None and _is_running(broker.pid) else None


def _believe(said: Any) -> LocalBroker | None:
    if not isinstance(said, dict):
        return None
    facts = cast("dict[object, object]", said)
    if facts.get("schema") != 1:
        return None
    address, pid = facts.get("address"), facts.get("pid")
    epoch, started = facts.get("epoch"), facts.get("started")
    if type(pid) is not int or pid < 1 or type(epoch) is not int or not isinstance(address, str):
        return None
    if not isinstance(started, (int, float)):
        return None
    try:
        return LocalBroker(check_address(address, "file"), pid, epoch, float(started))
    except UsageError:
        return None


def _is_running(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except (PermissionError, OverflowError):
        return True
    return True
