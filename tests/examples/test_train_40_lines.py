import subprocess
import sys
from pathlib import Path

EXAMPLE = Path(__file__).parents[2] / "examples" / "train_40_lines.py"


def lines(shards, out, steps):
    command = [sys.executable, EXAMPLE, shards, out, str(steps)]
    ran = subprocess.run(command, capture_output=True, text=True, check=False, env=None, cwd=EXAMPLE.parents[1])
    assert ran.returncode == 0, ran.stderr
    return ran.stdout.splitlines()


def test_the_example_goes_on_where_it_was_stopped_with_the_same_losses(demo_like, tmp_path):
    whole = lines(demo_like, tmp_path / "whole.pt", 5)
    assert [line.split(":")[0] for line in whole][:4] == [f"epoch 0, step {n}" for n in range(2)] + [
        f"epoch 1, step {n}" for n in (2, 3)
    ]
    assert lines(demo_like, tmp_path / "parts.pt", 2) + lines(demo_like, tmp_path / "parts.pt", 3) == whole


def test_the_example_has_forty_lines_of_code():
    code = EXAMPLE.read_text().split('"""', 2)[2]
    assert sum(bool(line.strip()) and '"""' not in line for line in code.splitlines()) <= 40
