import importlib.util
from pathlib import Path

EXAMPLE = Path(__file__).parents[2] / "examples" / "train_40_lines.py"


def lines(capsys, *arguments):
    """What the example prints."""
    spec = importlib.util.spec_from_file_location("example", EXAMPLE)
    example = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(example)
    example.main(*arguments)
    return capsys.readouterr().out.splitlines()


def test_the_example_continues_where_it_was_stopped_with_the_same_losses(pack, tmp_path, capsys):
    pack(tmp_path / "shards")
    whole = lines(capsys, tmp_path / "shards", tmp_path / "whole.pt", 4)
    assert [line.split(":")[0] for line in whole] == [f"epoch {n // 2}, step {n}" for n in range(4)]
    parts = [lines(capsys, tmp_path / "shards", tmp_path / "parts.pt", steps) for steps in (1, 3)]
    assert parts[0] + parts[1] == whole


def test_the_example_has_forty_lines_of_code_at_most():
    code = EXAMPLE.read_text().split('"""', 2)[2]
    assert sum(bool(line.strip()) and '"""' not in line for line in code.splitlines()) <= 40
