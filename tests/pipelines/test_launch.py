"""The documented launches do not depend on the current folder, which may have a package called `pipelines` of its own."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

# this checkout, whichever is installed
ENVIRONMENT = os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])}


@pytest.fixture
def elsewhere(tmp_path):
    """Another project's folder."""
    (tmp_path / "pipelines").mkdir()
    (tmp_path / "pipelines" / "__init__.py").write_text("raise ImportError('the package of another project')\n")
    return tmp_path


def installed(name: str) -> str:
    found = shutil.which(name, path=str(Path(sys.executable).parent))
    return found or pytest.skip(f"{name} is not installed beside {sys.executable}")


@pytest.mark.parametrize(
    "launcher",
    [[], pytest.param(["torchrun", "--nproc-per-node", "2"], marks=pytest.mark.slow)],
    ids=["alone", "torchrun"],
)
def test_the_installed_script_runs_beside_another_package_called_pipelines(launcher, elsewhere):
    words = [*([installed(launcher[0]), *launcher[1:]] if launcher else []), installed("a2data"), "--version"]
    out = subprocess.run(words, cwd=elsewhere, env=ENVIRONMENT, capture_output=True, text=True, check=False)
    assert out.returncode == 0, out.stderr
    assert out.stdout.count("a2data 0.") == (2 if launcher else 1)


def test_python_runs_the_api_beside_another_package_called_pipelines(elsewhere):
    script = elsewhere / "scripts" / "script.py"
    script.parent.mkdir()
    script.write_text("import a2data; print(a2data.open)")
    out = subprocess.run(
        [sys.executable, str(script)], cwd=elsewhere, env=ENVIRONMENT, capture_output=True, text=True, check=True
    )
    assert "function open" in out.stdout
