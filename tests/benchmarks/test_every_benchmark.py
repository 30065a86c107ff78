"""Every benchmark that the Makefile and the docs name starts on a machine that has only what `make` installs."""

import ast
import importlib
import re
from importlib.util import find_spec
from pathlib import Path

import pytest

from benchmarks import corpus, loader, triplet_bench

ROOT = Path(__file__).parents[2]
# what is not installed: benchmarks.loader skips it, benchmarks.sampling prints why a flag was not measured
OPTIONAL = {"litdata", "skyreels_v3", "torchao"}
FILES = sorted((ROOT / "benchmarks").rglob("*.py"))


def named(*texts: Path) -> list[str]:
    found = {name for text in texts for name in re.findall(r"-m benchmarks\.(\w+)", text.read_text(encoding="utf-8"))}
    assert found
    return sorted(found)


def test_every_benchmark_of_the_docs_can_be_called():
    for name in named(*ROOT.glob("*.md"), *ROOT.glob("docs/*.md")):
        assert find_spec(f"benchmarks.{name}"), name


@pytest.mark.parametrize("name", named(ROOT / "Makefile"))
def test_every_benchmark_of_the_makefile_starts(name):
    module = importlib.import_module(f"benchmarks.{name}")
    entry = find_spec(f"benchmarks.{name}.__main__") if hasattr(module, "__path__") else find_spec(f"benchmarks.{name}")
    assert 'if __name__ == "__main__"' in Path(entry.origin).read_text(encoding="utf-8")


@pytest.mark.parametrize("file", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_a_benchmark_imports_only_what_is_installed(file):
    """Imports inside functions too, which a start does not reach."""
    nodes = list(ast.walk(ast.parse(file.read_text(encoding="utf-8"))))
    names = [alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names]
    names += [node.module for node in nodes if isinstance(node, ast.ImportFrom) and node.module and not node.level]
    missing = {name.partition(".")[0] for name in names if find_spec(name.partition(".")[0]) is None}
    assert missing <= OPTIONAL


def test_the_loader_is_measured_without_litdata(monkeypatch):
    monkeypatch.setattr(loader, "find_spec", lambda name: None)
    assert loader.compared() == ["a2data", "webdataset", "stateful"]


def test_what_needs_the_corpus_is_skipped_by_name_without_it(monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(corpus, "CORPUS", tmp_path)
    monkeypatch.setattr("sys.argv", ["corpus"])
    corpus.main()
    monkeypatch.setattr("sys.argv", ["triplet_bench", "R", "--recipe", "builtin", "--recipe", "weights"])
    triplet_bench.main()
    said = capsys.readouterr().out
    assert said.startswith("skipped: no corpus of real footage")
    assert "builtin on tier R: skipped" in said
    assert "weights on tier R: skipped" in said
