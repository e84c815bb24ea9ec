"""The ``lifeline`` command: one group, each subcommand loaded when it is asked for, so that ``--help`` is quick."""

from __future__ import annotations

import importlib
import sys
from typing import Any

import click

COMMANDS = {
    "demo": (
        "services.demo.__main__:main",
        "Start the whole service on this machine, with its own database and broker.",
    ),
    "ingest": ("services.ingest.__main__:main", "Take readings from the broker into the database."),
    "db": ("services.commands.db:db", "Upgrade the database's schema, or check it."),
    "registry": ("services.commands.registry:registry", "Import sites, devices and points."),
    "deadletter": ("services.ingest.deadletter:deadletter", "See and re-ingest what ingest refused."),
    "simulate": ("services.simulator.__main__:main", "Publish simulated or replayed readings to a broker."),
}
"""Subcommand: where its click command lives, and its line in ``lifeline --help``."""


class _LazyGroup(click.Group):
    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 (click's signature)
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002
        if cmd_name not in COMMANDS:
            return None
        module, attribute = COMMANDS[cmd_name][0].split(":")
        command: Any = getattr(importlib.import_module(module), attribute)
        assert isinstance(command, click.Command)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002
        with formatter.section("Commands"):
            formatter.write_dl([(name, line) for name, (_, line) in COMMANDS.items()])


@click.group(cls=_LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="lifeline")
def lifeline() -> None:
    """Lifeline: monitoring and early warning for a city's lifelines (城市生命线安全工程).

    The processes are configured by environment variables alone; `lifeline COMMAND --help` says what each does.
    """


def main() -> None:
    """Run the command line; settings that cannot be used and a database that is away are told without a traceback."""
    import psycopg

    from lifeline.settings import SettingsError

    try:
        lifeline(prog_name="lifeline")
    except SettingsError as error:
        click.echo(f"lifeline: the settings cannot be used:\n{error}", err=True)
        sys.exit(2)
    except psycopg.OperationalError as error:
        click.echo(f"lifeline: the database of LIFELINE_DATABASE_URL does not answer: {str(error).strip()}", err=True)
        sys.exit(1)
    except psycopg.errors.UndefinedTable as error:
        click.echo(
            f"lifeline: the schema is missing, run `lifeline db upgrade` first: {error.diag.message_primary}", err=True
        )
        sys.exit(1)


if __name__ == "__main__":
    main()
