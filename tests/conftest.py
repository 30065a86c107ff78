"""Shared fixtures. Real footage and weights are optional: tests that need them skip, and say so."""

import importlib.util
import os
from pathlib import Path

import pytest

CORPUS = Path(os.environ.get("A2DATA_CORPUS", Path(__file__).parents[2] / "shared" / "corpus"))

if importlib.util.find_spec("jaxtyping"):  # the shapes and dtypes that model_zoo states are checked in every test
    from jaxtyping import install_import_hook

    install_import_hook(["model_zoo.a2_references"], "beartype.beartype")


@pytest.fixture(scope="session")
def corpus() -> Path:
    """The folder of real footage and weights, see CONTRIBUTING.md."""
    if not (CORPUS / "MANIFEST.json").exists():
        pytest.skip("no corpus of real footage: set A2DATA_CORPUS to its folder")
    return CORPUS
