"""What long-running commands say when they are ready: where they are, and what to type next.

Rules of this file: texts from facts. It asks the system for this host's address and nothing else.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass

import click

from evener.cli.output import clean
from evener.texts import plural
from evener.version import __version__

_WILDCARDS = ("0.0.0.0", "::", "[::]", "*")
_NAMES_SHOWN_MAX = 8


@dataclass(frozen=True, slots=True)
class Ready:
    """What is known when everything stands. `app` is None for a broker alone, which tells of its
    journal by itself."""

    address: str
    app: str | None = None
    workers: int = 0
    functions: Sequence[str] = ()
    journal: str = ""


def show_broker(ready: Ready) -> None:
    """For `evener broker`."""
    address = reachable(ready.address)
    _say([_headline(ready.address), "", "Next:", f"  add workers  {_worker_line(address)}"])


def show_up(ready: Ready) -> None:
    """For `evener up`."""
    address = reachable(ready.address)
    names = [clean(name) for name in ready.functions]
    more = f", ... {len(names) - _NAMES_SHOWN_MAX} more" if len(names) > _NAMES_SHOWN_MAX else ""
    listed = f"{len(names)}: {', '.join(names[:_NAMES_SHOWN_MAX])}{more}" if names else "none yet"
    lines = [
        _headline(ready.address),
        f"  workers     {ready.workers} on this host ({_cpus()})",
        f"  functions   {listed}",
        f"  journal     {clean(ready.journal)}",
        "",
        "Next:",
    ]
    # Local clients find a broker of this host by themselves.
    if names:
        lines.append(f"  submit      evener submit {names[0]} ... --wait")
        lines.append(
            f'  from Python with evener.Client() as c: c.submit("{names[0]}", ...).result()'
        )
    lines.append("  watch       evener status")
    if address != ready.address:
        lines.append(f"  more hosts  {_worker_line(address, ready.app)}")
    lines.append("  stop        Ctrl-C  (finishes running tasks; press twice to stop now)")
    _say(lines)


def reachable(address: str) -> str:
    """The address to give to other hosts: a wildcard becomes this host's own address."""
    host, _, port = address.removeprefix("tcp://").rpartition(":")
    return (
        f"tcp://{_own_address() or socket.gethostname()}:{port}" if host in _WILDCARDS else address
    )


def _headline(address: str) -> str:
    host = address.removeprefix("tcp://").rpartition(":")[0]
    if host == "localhost" or host.startswith("127.") or host == "[::1]":
        hint = "(loopback only; --host 0.0.0.0 to accept other machines)"
    else:
        hint = "(not encrypted, no keys: whoever reaches the port can run code)"
    title = click.style(f"evener {__version__}", bold=True)
    return f"{title}  broker ready on {reachable(address)}   {hint}"


def _worker_line(address: str, app: str | None = None) -> str:
    host = address.removeprefix("tcp://").rpartition(":")[0]
    insecure = "" if host == "localhost" or host.startswith("127.") else " --insecure"
    return f"evener worker {app or 'module:app'} --broker {address}{insecure}"


def _cpus() -> str:
    from evener_worker.cpus import usable_cpus

    seen, usable = os.cpu_count() or 1, usable_cpus()
    return f"{plural(seen, 'CPU')} seen" + (f", {usable} usable" if usable < seen else "")


def _own_address() -> str | None:
    """The address from which this host reaches others. Sends nothing: UDP connects without."""
    with suppress(OSError), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.connect(("192.0.2.1", 9))
        return str(probe.getsockname()[0])
    return None


def _say(lines: Sequence[str]) -> None:
    click.echo("\n".join(lines) + "\n", err=True)
