"""Registry files by their ending: CSV, XLSX, YAML and JSON."""

from __future__ import annotations

from pathlib import Path

from lifeline.registry import csv_file, json_file, xlsx_file, yaml_file
from lifeline.registry.document import Document, Noun
from lifeline.registry.problems import Problem, RegistryRefusedError

MOST_BYTES = 200 << 20
ENDINGS = (".csv", ".tsv", ".txt", ".xlsx", ".xlsm", ".yaml", ".yml", ".json")


def read_file(path: Path, noun: Noun | None = None) -> tuple[Document, list[Problem]]:
    """The document in a file, and warnings of what in it was not read.

    ``noun``: what the file holds, where it does not tell by itself. Raises :class:`RegistryRefusedError` with every
    problem of the file's form; its rows are checked by the import.
    """
    try:
        size = path.stat().st_size
        if size > MOST_BYTES:
            reason = f"{path}: {size >> 20} MiB; at most {MOST_BYTES >> 20} MiB are taken, import it in parts"
            raise RegistryRefusedError([Problem(reason)])
        content = path.read_bytes()
    except OSError as error:
        raise RegistryRefusedError([Problem(f"{path}: cannot be read: {error.strerror}")]) from error
    return read_bytes(content, path.suffix.lower(), noun)


def read_bytes(content: bytes, ending: str, noun: Noun | None = None) -> tuple[Document, list[Problem]]:
    """The same of a file's content; ``ending`` is the file name's, with the dot, in lower case."""
    match ending:
        case ".xlsx" | ".xlsm":
            return xlsx_file.read(content, noun)
        case ".csv" | ".tsv" | ".txt":
            return csv_file.read(content, noun), []
        case ".yaml" | ".yml":
            return yaml_file.read(content, noun), []
        case ".json":
            return json_file.read(content, noun), []
    raise RegistryRefusedError([Problem(f"'{ending}' is no ending of a registry file; known are {', '.join(ENDINGS)}")])
