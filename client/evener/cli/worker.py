"""`evener worker`: the agent of this host in this process, with its workers below it."""

from __future__ import annotations

from dataclasses import replace

import click

from evener.cli.care import care_options
from evener.cli.connect import local_broker
from evener.cli.group import COMMANDS, Command
from evener.cli.herald import Event, heralded
from evener.cli.options import ADDRESS, app_argument, log_options, option, worker_options
from evener.cli.output import complain
from evener.texts import plural


@click.command(
    "worker",
    cls=Command,
    help=COMMANDS["worker"].summary,
    examples=[
        "evener worker demo:app -n 4",
        "evener worker jobs/app.py:app --broker tcp://10.0.0.5:7450 --insecure -q gpu",
    ],
)
@app_argument(required=True, metavar="MODULE:APP")
@worker_options
@care_options
@option(
    "--broker",
    "-b",
    key="worker.broker",
    type=ADDRESS,
    metavar="tcp://HOST:PORT",
    section="Connection",
)
@option("--insecure", key="worker.insecure", is_flag=True, section="Connection")
@log_options
def command(
    app: str,
    workers: int | None,
    queues: tuple[str, ...],
    name: str | None,
    drain: float,
    start_timeout: float,
    stop_timeout: float,
    max_tasks_per_worker: int | None,
    max_worker_age: float | None,
    max_worker_memory: int | None,
    ping_timeout: float,
    reload: bool,
    broker: str | None,
    insecure: bool,
    log_level: str,
    log_format: str,
    quiet: bool,
) -> int:
    from evener.cli import logs
    from evener_worker.config import AgentConfig
    from evener_worker.server import serve

    logs.set_up("agent", log_level, log_format, quiet)
    line = logs.line_maker("agent", log_format)
    config = AgentConfig(
        app=app,
        workers=workers or 0,
        broker=broker or local_broker(),
        queues=queues or ("default",),
        name=name or "",
        insecure=insecure,
        drain_seconds=round(drain),
        start_seconds=start_timeout,
        stop_seconds=stop_timeout,
        max_tasks_per_worker=max_tasks_per_worker or 0,
        max_worker_age_seconds=max_worker_age or 0.0,
        max_worker_memory=max_worker_memory or 0,
        ping_seconds=ping_timeout,
        reload=reload,
        log_level="warning" if quiet else log_level,
    )
    if quiet or log_format == "json":
        return serve(config, line)
    with heralded(Start(config.broker).tell) as ready_fd:
        return serve(replace(config, ready_fd=ready_fd), line)


class Start:
    """What is known of the start: said in one line once the workers serve the broker."""

    def __init__(self, broker: str) -> None:
        self._broker = broker
        self._connected = False
        self._workers = ""

    def tell(self, event: Event) -> bool:
        """Whether this was all."""
        if event.get("event") == "connected":
            self._connected = True
        elif event.get("event") == "ready":
            functions = plural(len(event["functions"]), "function")
            self._workers = f"{plural(event['workers'], 'worker')} ready, {functions}"
        elif not event and not self._connected and self._workers:
            self._say(f"{self._workers}; no broker answers at {self._broker} yet")
        if not (self._connected and self._workers):
            return False
        self._say(f"{self._workers}; connected to the broker at {self._broker}")
        return True

    def _say(self, text: str) -> None:
        complain(text, "evener worker")
