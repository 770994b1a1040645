"""`evener stack`: what a worker process is doing at this moment, also when it hangs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import click

from evener.cli import exits
from evener.cli.connect import connected
from evener.cli.group import COMMANDS, Command
from evener.cli.options import broker_option, connect_option, json_option
from evener.cli.output import clean, complain, duration, print_json
from evener.texts import plural

# The worker has 2 s, its agent a little more, the broker gives up after 4 s and says so.
_QUERY_S: Final = 8.0


@click.command(
    "stack",
    cls=Command,
    help=f"""{COMMANDS["stack"].summary}

    WORKER is a pid, host/pid, a name as `evener ls workers` shows it, or the id of a running task,
    which may be cut. The stacks of all threads are shown, the innermost call first. The worker goes
    on with what it does; nothing has to be installed on its host.
    """,
    examples=[
        "evener stack 4711",
        "evener stack node-3/4711",
        "evener stack 7f3a90b1 --json | jq -r .stack",
    ],
)
@click.argument("worker", metavar="WORKER")
@json_option
@broker_option
@connect_option
def command(worker: str, as_json: bool, broker: str | None, connect_timeout: float) -> int:
    wanted = worker.rpartition("[")[2].removesuffix("]") if worker.endswith("]") else worker
    with connected(broker, connect_timeout) as client:
        answer = client.query("stack", query_timeout=_QUERY_S, worker=wanted)
    stack = answer.get("stack") or ""
    if as_json:
        print_json(answer)
    else:
        click.echo(clean(_headline(answer)))
        if stack:
            click.echo("\n" + clean(stack.rstrip()))
        if answer.get("reason"):
            what = "the stack may be incomplete" if stack else "no Python stack"
            complain(f"{what}: {answer['reason']}", "evener stack")
    return exits.OK if stack else exits.FAILED


def _headline(answer: Mapping[str, Any]) -> str:
    since = duration(answer.get("since_ms"))
    if answer.get("task"):
        does = f"runs {answer['function']}[{answer['task'][:8]}] since {since}"
    else:
        does = f"{answer['state']}, no task, for {since}"
    return f"worker {answer['worker']} (pid {answer['pid']}): {does}{_kernel(answer['kernel'])}"


def _kernel(kernel: Mapping[str, Any]) -> str:
    """Where the kernel sees the process: `; S (sleeping) in futex_wait, 3 threads`."""
    if not kernel.get("state"):
        return ""
    where = kernel.get("wchan")
    text = f"; {kernel['state']}" + (f" in {where}" if where and where != "0" else "")
    threads = kernel.get("threads")
    return text + (f", {plural(threads, 'thread')}" if threads else "")
