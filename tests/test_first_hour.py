"""The first hour: the commands of the tutorial in an empty folder, as printed, each within its stated time."""

import os
import re
import shlex
import subprocess
import sys
import time
from pathlib import Path

import pytest
from pages import ROOT, commands

STATED = re.compile(r"# (\d+) minutes?$")
DEFAULT_S = 60.0
NEEDS_NETWORK = ("pip ", "a2data models fetch", "a2data run --work work --profile small")


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_the_tutorial_works_as_printed_within_its_times(tmp_path):
    (tmp_path / "pipelines").mkdir()  # a package of the reader's own
    (tmp_path / "pipelines" / "__init__.py").write_text("raise ImportError('the package of the reader')")
    script = Path(sys.executable).with_name("a2data")
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
    lines = [line for line in commands(ROOT / "docs" / "tutorial.md") if not line.startswith(NEEDS_NETWORK)]
    late = []
    for line in lines:
        program, *words = shlex.split(line, comments=True)
        began = time.monotonic()
        done = subprocess.run([script, *words], cwd=tmp_path, env=environment, capture_output=True, text=True)
        took_s, stated = time.monotonic() - began, STATED.search(line)
        assert program == "a2data"
        assert done.returncode == 0, f"{line}\n{done.stdout}\n{done.stderr}"
        if took_s > (60 * float(stated[1]) if stated else DEFAULT_S):
            late.append(f"{line}: {took_s:.0f} s")

    assert len(lines) > 10
    assert (tmp_path / "report.html").stat().st_size > 100_000
    assert list((tmp_path / "shards").glob("*.tar"))
    assert late == []
