"""NumPy columns as parameters: PostgreSQL's binary arrays, laid out without a Python object per element.

Format: ``array_send`` in PostgreSQL's source. Use: ``unnest(%s::int4[])`` with :class:`Array` after :func:`register`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

import numpy as np
from psycopg.adapt import Dumper, PyFormat
from psycopg.pq import Format

if TYPE_CHECKING:
    import psycopg
    from numpy.typing import NDArray
    from psycopg.abc import DumperKey

POSTGRES_EPOCH = 946_684_800_000_000
"""2000-01-01T00:00Z in microseconds since 1970: where PostgreSQL counts timestamps from."""

# pg_type: oids of an element and of its array; they never change.
INT2, INT4, INT8, FLOAT8, TIMESTAMPTZ = (21, 1005), (23, 1007), (20, 1016), (701, 1022), (1184, 1185)


@dataclass(frozen=True, slots=True)
class Array:
    """A NumPy column on its way to the server as a one-dimensional array of a fixed-width type."""

    values: NDArray[Any]
    element_oid: int
    array_oid: int


class _ArrayDumper(Dumper):
    """Lays out one column as a binary array; one dumper per element type, chosen by the array's oid."""

    format = Format.BINARY

    def get_key(self, obj: Array, format: PyFormat) -> DumperKey:  # noqa: A002, ARG002 (psycopg's signature)
        return cast("DumperKey", (self.cls, obj.array_oid))

    def upgrade(self, obj: Array, format: PyFormat) -> _ArrayDumper:  # noqa: A002, ARG002
        dumper = _ArrayDumper(self.cls)
        dumper.oid = obj.array_oid
        return dumper

    def dump(self, obj: Array) -> bytes:
        cells = np.empty(len(obj.values), [("size", ">i4"), ("value", obj.values.dtype.newbyteorder(">"))])
        cells["size"] = obj.values.dtype.itemsize
        cells["value"] = obj.values
        header = np.array([1, 0, obj.element_oid, len(obj.values), 1], ">i4")
        return header.tobytes() + cells.tobytes()


def register(connection: psycopg.Connection) -> None:
    """Make ``connection`` take :class:`Array` parameters."""
    connection.adapters.register_dumper(Array, _ArrayDumper)
