"""The top of the command line: which commands there are, how help looks, how errors end.

Rules of this file: no command is imported before it is called; `evener --help` works from the table
below. Every error becomes one sentence on stderr and an exit code, and nothing else escapes but
mistakes of our own, which keep their traceback.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Sequence
from importlib import import_module
from typing import Any, Final, NamedTuple

import click

from evener.cli import exits
from evener.version import __version__


class Entry(NamedTuple):
    """A command before it is loaded: its section in the help, module, and one-line summary."""

    section: str
    module: str
    summary: str


COMMANDS: Final[dict[str, Entry]] = {
    "up": Entry("Start", "up", "Start a broker and workers here, in one go."),
    "broker": Entry("Start", "broker", "Run a broker, for workers and clients of any host."),
    "worker": Entry("Start", "worker", "Run worker processes on this host."),
    "demo": Entry("Start", "demo", "Run real work on a local cluster, and kill a worker."),
    "restart": Entry("Care", "restart", "Replace workers one by one, so that they load new code."),
    "drain": Entry("Care", "drain", "Let a host finish what runs and take nothing new."),
    "scale": Entry("Care", "scale", "Change how many workers a host has."),
    "schedule": Entry("Care", "schedule", "Run a schedule now, pause it, or let it go on."),
    "submit": Entry("Use", "submit", "Submit a task, and print its id or its result."),
    "cancel": Entry("Use", "cancel", "Cancel tasks, queued or running."),
    "result": Entry("Use", "result", "Print the result of a task that was submitted before."),
    "retry": Entry("Use", "retry", "Submit tasks that failed, got lost or expired once more."),
    "purge": Entry("Use", "purge", "Forget tasks that failed, got lost or expired."),
    "status": Entry("Look", "status", "Show the cluster on one screen."),
    "ls": Entry("Look", "ls", "List tasks, workers, hosts and more; or what was lost or failed."),
    "show": Entry("Look", "show", "Show all that is known of one task, also after its end."),
    "why": Entry("Look", "why", "Tell why a task waits, or where it runs and since when."),
    "stack": Entry("Look", "stack", "Print the Python stack of a worker, also of one that hangs."),
    "logs": Entry("Look", "worker_logs", "Show what workers wrote, and follow it with -f."),
    "ping": Entry("Look", "ping", "Tell whether the broker answers."),
    "config": Entry("Look", "config", "Show, check or begin the configuration."),
}


class Command(click.Command):
    """A command whose help shows examples before its options, and options in groups."""

    def __init__(self, *args: Any, examples: Sequence[str] = (), **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.examples = examples
        if any(getattr(parameter, "key", None) is not None for parameter in self.params):
            self.params.append(config_option())

    def format_help_text(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        super().format_help_text(ctx, formatter)
        if self.examples:
            with formatter.section("Examples"):
                for example in self.examples:
                    formatter.write(f"{'':>{formatter.current_indent}}{example}\n")

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        sections: dict[str, list[tuple[str, str]]] = {}
        for parameter in self.get_params(ctx):
            record = parameter.get_help_record(ctx)
            if record is not None and isinstance(parameter, click.Option):
                section = getattr(parameter, "section", "Other options")
                sections.setdefault(section, []).append(record)
        for section, records in sections.items():
            with formatter.section(section):
                formatter.write_dl(records)


class Group(click.Group):
    """The commands of the table above, each loaded when it is called."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        entry = COMMANDS.get(cmd_name)
        if entry is None:
            return None
        command = import_module(f"evener.cli.{entry.module}").command
        assert isinstance(command, click.Command)
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if args[0] not in COMMANDS:
            raise click.UsageError(f'no such command "{args[0]}".{did_you_mean(args[0], COMMANDS)}')
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        for section in dict.fromkeys(entry.section for entry in COMMANDS.values()):
            with formatter.section(section):
                formatter.write_dl(
                    [(name, e.summary) for name, e in COMMANDS.items() if e.section == section]
                )

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Exit codes"):
            formatter.write_dl([(str(code), meaning) for code, meaning in exits.MEANINGS])
        with formatter.section("Environment"):
            formatter.write_dl(
                [
                    ("EVENER_BROKER", "address of the broker, as --broker"),
                    ("EVENER_CONFIG", "file with settings, as --config (see evener config)"),
                    (
                        "EVENER_UP_PORT",
                        "and so on: --port of evener up, and any option with a value",
                    ),
                    ("NO_COLOR", "no colours"),
                ]
            )

    def main(  # pyright: ignore[reportIncompatibleMethodOverride]
        self,
        args: Sequence[str] | None = None,
        prog_name: str | None = None,
        complete_var: str | None = None,
        standalone_mode: bool = True,
        **extra: Any,
    ) -> Any:
        def inner() -> Any:
            return super(Group, self).main(args, prog_name, complete_var, False, **extra)

        # Click knows neither, and every program of ours should honour both.
        if os.environ.get("NO_COLOR") or os.environ.get("TERM") == "dumb":
            extra.setdefault("color", False)
        elif os.environ.get("FORCE_COLOR"):
            extra.setdefault("color", True)
        code = _guarded(inner)
        if standalone_mode:
            sys.exit(code)
        return code


def config_option() -> click.Option:
    """`--config`, read before all others: they may be in the file."""

    def note(ctx: click.Context, parameter: click.Parameter, value: str | None) -> None:
        if not value:
            return
        # In the environment, so that clients and children of the command read the same.
        before = os.environ.get("EVENER_CONFIG", "")
        os.environ["EVENER_CONFIG"] = os.path.abspath(value)
        ctx.call_on_close(lambda: os.environ.update(EVENER_CONFIG=before))

    return click.Option(
        ["--config"],
        metavar="FILE",
        expose_value=False,
        is_eager=True,
        callback=note,
        help="Settings to use; else EVENER_CONFIG, ./evener.toml, [tool.evener] of "
        "pyproject.toml, ~/.config/evener/config.toml.",
        allow_from_autoenv=False,
    )


def did_you_mean(name: str, known: Sequence[str] | dict[str, Any]) -> str:
    """` Did you mean "status"?`, or nothing."""
    from difflib import get_close_matches

    close = get_close_matches(name, list(known), n=1)
    return f' Did you mean "{close[0]}"?' if close else ""


# --- How a command ends ---------------------------------------------------------------------------


def run(arguments: Sequence[str]) -> int:
    """Run the command line and return its exit code."""
    code: int = cli.main(args=list(arguments), prog_name="evener", standalone_mode=False)
    return code


def _guarded(main: Callable[[], Any]) -> int:
    try:
        code = main()
        sys.stdout.flush()
    except click.exceptions.Exit as done:
        return done.exit_code
    except (click.Abort, KeyboardInterrupt):
        return exits.INTERRUPTED
    except click.ClickException as error:
        return _tell(error)
    except BrokenPipeError:
        # Whoever read our output has left, as `head` does. Python would complain at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return exits.FAILED
    except Exception as error:
        return _translate(error)
    return code if isinstance(code, int) else exits.OK


def _tell(error: click.ClickException) -> int:
    from evener.cli.output import complain

    text = error.format_message()
    text = text[:1].lower() + text[1:]
    context = error.ctx if isinstance(error, click.UsageError) else None
    path = context.command_path if context is not None else "evener"
    hint = f"\ntry: {path} --help" if isinstance(error, click.UsageError) else ""
    complain(text + hint, path)
    return error.exit_code


def _translate(error: Exception) -> int:
    """One sentence for errors of evener's families; anything else is a mistake of our own."""
    from evener.cli.output import complain
    from evener.errors import EvenerError

    if not isinstance(error, EvenerError):
        raise error
    trace = getattr(error, "traceback", "")
    if isinstance(trace, str) and trace:
        complain(trace.rstrip(), "")
    complain(str(error), "evener")
    return exits.code_of(error)


# --- The command itself ---------------------------------------------------------------------------


@click.group(
    cls=Group,
    context_settings={
        "auto_envvar_prefix": "EVENER",
        "help_option_names": ["-h", "--help"],
        "max_content_width": 100,
    },
)
@click.version_option(__version__, prog_name="evener", message="%(prog)s %(version)s")
def cli() -> None:
    """Run Python functions on a pool of worker processes, on one host or on many.

    \b
    Try it:       evener demo
    Start it:     evener up module:app -n 4
    Use it:       evener submit module:function 1 2 --wait
    """


cli.params.append(config_option())
