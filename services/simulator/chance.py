"""Chance without state: every draw is a pure function of the seed and its keys.

A reading's value therefore depends on the seed, its point and its time alone: the same reading is the same whether it
is published at once, late in a batch, twice, or as history, and nothing has to be remembered between ticks.
The mixer is splitmix64 (Steele, Lea, Flood: "Fast splittable pseudorandom number generators", 2014).
"""

from __future__ import annotations

import zlib

import numpy as np
from numpy.typing import ArrayLike, NDArray

Floats = NDArray[np.float64]

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)
_MIX_1 = np.uint64(0xBF58476D1CE4E5B9)
_MIX_2 = np.uint64(0x94D049BB133111EB)


def key(text: str) -> int:
    """A stable number for a name, to be used as one of the keys of a draw."""
    return zlib.crc32(text.encode())


def bits(seed: int, *keys: ArrayLike) -> NDArray[np.uint64]:
    """64 random bits for each element of the broadcast integer ``keys``."""
    state: NDArray[np.uint64] = np.asarray(np.uint64(seed & 0xFFFFFFFFFFFFFFFF))
    with np.errstate(over="ignore"):
        for item in keys:
            state = state ^ np.asarray(item).astype(np.int64).astype(np.uint64)
            state = state + _GOLDEN
            state = (state ^ (state >> np.uint64(30))) * _MIX_1
            state = (state ^ (state >> np.uint64(27))) * _MIX_2
            state = state ^ (state >> np.uint64(31))
    return state


def uniform(seed: int, *keys: ArrayLike) -> Floats:
    """Numbers evenly spread over [0, 1)."""
    return (bits(seed, *keys) >> np.uint64(11)).astype(np.float64) * 2.0**-53


def normal(seed: int, *keys: ArrayLike) -> Floats:
    """Near-normal numbers, mean 0 and deviation 1, never beyond ±3.5 (four 16-bit uniforms added).

    The bound matters: noise must not carry a quiet signal over a limit once a year.
    """
    drawn = bits(seed, *keys)
    total = np.zeros(drawn.shape)
    for shift in (0, 16, 32, 48):
        total += ((drawn >> np.uint64(shift)) & np.uint64(0xFFFF)).astype(np.float64) / 65536
    result: Floats = (total - 2.0) * np.sqrt(3.0)
    return result


def drift(seed: int, name: ArrayLike, times: Floats, period_s: float) -> Floats:
    """Smooth wandering in [-1, 1]: values drawn every ``period_s`` seconds, eased between."""
    slot = np.floor(times / period_s)
    share = times / period_s - slot
    eased = share * share * (3 - 2 * share)
    before = uniform(seed, name, slot)
    after = uniform(seed, name, slot + 1)
    result: Floats = 2 * (before + (after - before) * eased) - 1
    return result
