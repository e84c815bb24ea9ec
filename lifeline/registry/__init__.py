"""The registry: organisations, indicators, sites, devices and points, and importing them by document or file."""

from lifeline.registry.document import NOUNS, Document, Noun, Row
from lifeline.registry.objects import from_mapping
from lifeline.registry.problems import Problem, RegistryRefusedError
from lifeline.registry.store import Imported, import_document, lock, seed_catalogue
from lifeline.registry.upsert import Counts

__all__ = [
    "NOUNS",
    "Counts",
    "Document",
    "Imported",
    "Noun",
    "Problem",
    "RegistryRefusedError",
    "Row",
    "from_mapping",
    "import_document",
    "lock",
    "seed_catalogue",
]
