"""Fixtures shared by all tests: the real data where it is at hand, and no network."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]


def find_shared_data() -> Path | None:
    """The folder of real data: ``$BLOODCELLS_DATA``, or ``../shared/data`` beside the checkout."""
    named = os.environ.get("BLOODCELLS_DATA")
    for folder in ([Path(named)] if named else []) + [ROOT.parent / "shared" / "data"]:
        if (folder / "bccd").is_dir():
            return folder
    return None


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real data; the test is skipped where it is absent."""
    folder = find_shared_data()
    if folder is None:
        pytest.skip("the real data are not here: put them in ../shared/data or name their folder in BLOODCELLS_DATA")
    return folder
