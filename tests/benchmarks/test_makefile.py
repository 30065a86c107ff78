"""Every benchmark that the Makefile names can be started on a fresh machine."""

import importlib
import re
from pathlib import Path

import pytest

MAKEFILE = Path(__file__).parents[2] / "Makefile"
NAMES = sorted(set(re.findall(r"-m (benchmarks\.\w+)", MAKEFILE.read_text())))


def test_the_makefile_names_benchmarks():
    assert len(NAMES) > 10


@pytest.mark.parametrize("name", NAMES)
def test_a_benchmark_of_the_makefile_imports_and_has_a_command(name):
    module = importlib.import_module(name)
    if hasattr(module, "__path__"):
        module = importlib.import_module(f"{name}.__main__")
    assert callable(module.main)
