"""Alembic, driven from code: ``env.py`` and the numbered versions, and what runs and checks them."""
