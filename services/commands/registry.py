"""``lifeline registry``: sites, devices and points from files into the database and back."""

from __future__ import annotations

import itertools
import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    import psycopg

    from lifeline.registry import Imported, Noun, Problem

_SHOWN = 50
_TIMEOUT_S = 600
_NOUNS = ("organisations", "indicators", "sites", "devices", "points")
_BUSY = "another import is still running; try again when it has ended"

noun_option = click.option(
    "--noun", type=click.Choice(_NOUNS), help="What the file holds, where its headings or sheet names do not tell."
)


@click.group()
def registry() -> None:
    """Organisations, indicators, sites, devices and points: import, export, template."""


@registry.command("import")
@click.argument("file", type=click.Path(path_type=Path))
@noun_option
@click.option("--dry-run", is_flag=True, help="Check everything against the database and write nothing.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object with the counts, or with every problem.")
def import_(file: Path, noun: Noun | None, dry_run: bool, as_json: bool) -> None:
    """Import FILE (.csv, .xlsx, .yaml, .json): all of it or, where a row is bad, nothing.

    Rows are matched by code. Headings, fields, sectors, counties and indicators may be given by their Chinese names.
    A field that a row does not mention keeps its value; an empty cell clears it. Missing indicators of the catalogue
    are put in as well. Exit status 1: nothing was written, and every bad row is named by number (from 1), code and
    line.
    """
    from lifeline.registry import RegistryRefusedError, import_document
    from lifeline.registry.files import read_file

    told = _silent if as_json else _tell
    unread: list[Problem] = []
    try:
        told(f"reading {file}")
        document, unread = read_file(file, noun)
        with _connection() as connection:
            imported = import_document(connection, document, dry_run=dry_run, progress=told)
    except RegistryRefusedError as error:
        _print_problems(error.problems, unread, as_json)
        sys.exit(1)
    imported.warnings[:0] = unread
    _print_imported(imported, dry_run, as_json)


@registry.command()
def seed() -> None:
    """Put the indicator catalogue into the database; indicators that are there already stay as they are."""
    from lifeline.registry import seed_catalogue

    with _connection() as connection:
        inserted = seed_catalogue(connection)
    click.echo(f"indicators: {inserted} created")


@registry.command()
@click.argument("file", type=click.Path(path_type=Path))
@noun_option
def export(file: Path, noun: Noun | None) -> None:
    """Write the registry to FILE (.xlsx, .yaml, .json; .csv with --noun), in the form that import reads."""
    from lifeline.registry.document import NOUNS
    from lifeline.registry.export import ExportError, read_registry, write_file

    try:
        with _connection() as connection:
            stored = read_registry(connection, [noun] if noun else NOUNS)
        write_file(file, stored)
    except (ExportError, OSError) as error:
        raise click.ClickException(f"{file} was not written: {error}") from error
    click.echo(", ".join(f"{len(rows):,} {name}" for name, rows in stored.items()) + f" written to {file}")


@registry.command()
@click.argument("file", type=click.Path(path_type=Path))
def template(file: Path) -> None:
    """Write an empty workbook to FILE (.xlsx): a sheet per noun, every heading, one example row to overwrite."""
    from lifeline.registry.export import ExportError, write_template

    try:
        write_template(file)
    except (ExportError, OSError) as error:
        raise click.ClickException(f"{file} was not written: {error}") from error
    click.echo(f"template written to {file}")


@contextmanager
def _connection() -> Iterator[psycopg.Connection[Any]]:
    """A connection of this command; what goes wrong in the database is told in words."""
    import psycopg

    from lifeline import settings
    from lifeline.db import connect

    try:
        with connect(settings.load(), "registry", statement_timeout_s=_TIMEOUT_S) as connection:
            yield connection
    except psycopg.errors.LockNotAvailable as error:
        raise click.ClickException(_BUSY) from error
    except psycopg.errors.UndefinedTable as error:
        raise click.ClickException("the database has no schema yet: run `lifeline db upgrade` first") from error
    except psycopg.Error as error:
        raise click.ClickException(f"nothing was written; the database said: {str(error).strip()}") from error


def _print_problems(problems: list[Problem], warnings: list[Problem], as_json: bool) -> None:
    if as_json:
        refused = {"problems": [problem.as_dict() for problem in problems]}
        if warnings:
            refused["warnings"] = [problem.as_dict() for problem in warnings]
        click.echo(json.dumps(refused, ensure_ascii=False))
        return
    for warning in warnings[:_SHOWN]:
        click.echo(f"warning: {warning}", err=True)
    # Problems come in the document's order: those of one row stand together, under its name where they are several.
    rows = [list(found) for _, found in itertools.groupby(problems, key=lambda item: (item.where, item.index))]
    for found in rows[:_SHOWN]:
        if len(found) == 1 or found[0].index is None:
            reasons = [str(problem) for problem in found]
        else:
            named = (f"{problem.field}: {problem.reason}" if problem.field else problem.reason for problem in found)
            reasons = [f"{found[0].where}:", *(f"  {reason}" for reason in named)]
        click.echo("\n".join(reasons), err=True)
    if len(rows) > _SHOWN:
        click.echo(f"and {len(rows) - _SHOWN:,} more rows (--json prints all)", err=True)
    click.echo(f"nothing was written: {len(problems):,} problem{'s'[: len(problems) != 1]}", err=True)


def _print_imported(imported: Imported, dry_run: bool, as_json: bool) -> None:
    if as_json:
        counts = {
            noun: {"created": count.created, "changed": count.changed, "unchanged": count.unchanged}
            for noun, count in imported.counts.items()
        }
        warnings = [problem.as_dict() for problem in imported.warnings]
        done = {"counts": counts, "catalogue": imported.catalogue, "warnings": warnings, "dry_run": dry_run}
        click.echo(json.dumps(done, ensure_ascii=False))
        return
    for warning in imported.warnings[:_SHOWN]:
        click.echo(f"warning: {warning}", err=True)
    if len(imported.warnings) > _SHOWN:
        click.echo(f"warning: and {len(imported.warnings) - _SHOWN:,} more (--json prints all)", err=True)
    if imported.catalogue:
        click.echo(f"catalogue: {imported.catalogue} indicators created")
    for noun, count in imported.counts.items():
        click.echo(f"{noun}: {count.created:,} created, {count.changed:,} changed, {count.unchanged:,} unchanged")
    if not imported.counts:
        click.echo("the file holds no rows")
    if dry_run:
        click.echo("dry run: nothing was written")


def _tell(line: str) -> None:
    click.echo(f"{line} …", err=True)


def _silent(_: str) -> None:
    pass
