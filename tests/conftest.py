"""Shared fixtures. Real footage and weights are optional: tests that need them skip, and say so."""

import os
from pathlib import Path

import pytest

CORPUS = Path(os.environ.get("A2DATA_CORPUS", Path(__file__).parents[2] / "shared" / "corpus"))


@pytest.fixture(scope="session")
def corpus() -> Path:
    """The folder of real footage and weights, see CONTRIBUTING.md."""
    if not (CORPUS / "MANIFEST.json").exists():
        pytest.skip("no corpus of real footage: set A2DATA_CORPUS to its folder")
    return CORPUS
