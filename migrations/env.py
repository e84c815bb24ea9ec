"""Alembic's entry: runs the versions on the connection that :mod:`migrations.upgrade` hands over."""

from __future__ import annotations

from alembic import context


def _run() -> None:
    attributes = context.config.attributes
    context.configure(
        connection=attributes["connection"],
        transaction_per_migration=True,  # what is done stays done when a later version fails
        on_version_apply=attributes["on_version_apply"],
    )
    with context.begin_transaction():
        context.run_migrations()


_run()
