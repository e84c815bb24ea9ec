"""Readings from the broker into the database, each once, whatever fails on the way."""
