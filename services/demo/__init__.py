"""One command that starts the whole service on one machine."""
