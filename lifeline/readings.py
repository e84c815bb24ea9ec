"""Readings in columns: what parsers make, the writer stores and rules judge, many at a time."""

from __future__ import annotations

import zlib
from dataclasses import dataclass, fields
from datetime import UTC, datetime, timedelta
from typing import Self

import numpy as np
from numpy.typing import NDArray

GOOD, UNCERTAIN, BAD = 0, 1, 2
QUALITIES = ("good", "uncertain", "bad")
"""Quality by its stored number."""

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_DTYPES = {"point_id": "<i4", "time": "<i8", "received_at": "<i8", "value": "<f8", "quality": "<i2"}
_PACK_VERSION = 1


class PackError(ValueError):
    """The bytes are no packed readings of a version this code knows."""


@dataclass(frozen=True, slots=True)
class Readings:
    """``n`` readings as five arrays of length ``n``.

    ``point_id`` int32; ``time`` and ``received_at`` int64, microseconds since 1970-01-01T00:00Z; ``value`` float64 in
    the point's unit (booleans are 0 and 1); ``quality`` int16 (:data:`GOOD`, :data:`UNCERTAIN`, :data:`BAD`).
    """

    point_id: NDArray[np.int32]
    time: NDArray[np.int64]
    received_at: NDArray[np.int64]
    value: NDArray[np.float64]
    quality: NDArray[np.int16]

    def __len__(self) -> int:
        return len(self.point_id)

    @classmethod
    def empty(cls) -> Self:
        return cls(*(np.empty(0, dtype) for dtype in _DTYPES.values()))

    @classmethod
    def concatenate(cls, parts: list[Self]) -> Self:
        if len(parts) == 1:
            return parts[0]
        if not parts:
            return cls.empty()
        return cls(*(np.concatenate([getattr(part, name) for part in parts]) for name in _DTYPES))

    def take(self, chosen: NDArray[np.intp] | NDArray[np.bool_]) -> Self:
        """The readings at the given positions, or where the mask is true."""
        return type(self)(*(getattr(self, field.name)[chosen] for field in fields(self)))

    def pack(self) -> bytes:
        """A compact form for the evaluation queue: version byte, count, then the five columns, zlib level 1."""
        columns = b"".join(
            np.ascontiguousarray(getattr(self, name), dtype).tobytes() for name, dtype in _DTYPES.items()
        )
        return bytes([_PACK_VERSION]) + len(self).to_bytes(4, "little") + zlib.compress(columns, 1)

    @classmethod
    def unpack(cls, packed: bytes) -> Self:
        """The readings :meth:`pack` packed. Raises :class:`PackError`."""
        if len(packed) < 5 or packed[0] != _PACK_VERSION:
            raise PackError(f"not packed readings of version {_PACK_VERSION}")
        count = int.from_bytes(packed[1:5], "little")
        try:
            columns = zlib.decompress(packed[5:])
        except zlib.error as error:
            raise PackError(f"packed readings are damaged: {error}") from error
        if len(columns) != count * sum(np.dtype(dtype).itemsize for dtype in _DTYPES.values()):
            raise PackError(f"packed readings are damaged: {len(columns)} bytes for {count} readings")
        arrays, start = [], 0
        for dtype in _DTYPES.values():
            arrays.append(np.frombuffer(columns, dtype, count, start))
            start += count * np.dtype(dtype).itemsize
        return cls(*arrays)


def to_micros(moment: datetime) -> int:
    """Microseconds since 1970-01-01T00:00Z of an aware datetime."""
    return (moment - _EPOCH) // timedelta(microseconds=1)


def from_micros(micros: int) -> datetime:
    """The UTC datetime of microseconds since 1970-01-01T00:00Z."""
    return _EPOCH + timedelta(microseconds=micros)
