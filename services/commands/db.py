"""``lifeline db``: bring the schema to the newest version, check it, bring the aggregates up to date."""

from __future__ import annotations

import click
import psycopg


@click.group()
def db() -> None:
    """Upgrade the database's schema, or check it."""


@db.command()
def upgrade() -> None:
    """Bring the database of LIFELINE_DATABASE_URL to the newest version; harmless to repeat."""
    from lifeline import settings
    from migrations.upgrade import UpgradeError
    from migrations.upgrade import upgrade as run

    try:
        run(settings.load(), click.echo)
    except UpgradeError as error:
        raise click.ClickException(f"the database was not upgraded: {error}") from error


@db.command()
def check() -> None:
    """Say where the database differs from the schema this program expects; exit 1 if it does."""
    from lifeline import settings
    from migrations.check import differences
    from migrations.upgrade import UpgradeError

    try:
        found = differences(settings.load())
    except UpgradeError as error:
        raise click.ClickException(f"the database was not checked: {error}") from error
    for line in found:
        click.echo(line)
    if found:
        raise click.ClickException(f"differences found: {len(found)}")
    click.echo("the database is as it should be")


@db.command()
def refresh() -> None:
    """Bring the 1-minute, 1-hour and 1-day aggregates up to date now, without waiting for the running service."""
    from lifeline import settings, timeseries
    from lifeline.db import connect

    try:
        with connect(settings.load(), "db", statement_timeout_s=3600) as connection:
            timeseries.refresh(connection)
    except (psycopg.Error, timeseries.HomeError, TimeoutError) as error:
        raise click.ClickException(f"the aggregates were not refreshed: {error}") from error
    click.echo("the aggregates are up to date")
