"""Recordings that lie beside the checkout where it is developed, and no part of the product."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.servers import ROOT

MAPPINGS = ROOT / "tests" / "data"
_SHARED = ROOT.parent / "shared" / "data"


def need(name: str) -> Path:
    """The recording ``name``; without it the test skips."""
    path = _SHARED / name
    if not path.is_file():
        pytest.skip(f"needs {name}, which is not part of the product")
    return path
