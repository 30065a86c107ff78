"""The rules that no reader should have to remember."""

import ast
import os
import re
import subprocess
import sys
from dataclasses import fields, is_dataclass
from pathlib import Path

import pytest

from a2data.records import Source
from a2data.store.schema import schema
from pipelines.cli import commands
from pipelines.run.settings import TYPES
from pipelines.triplets import PROFILES, triplets

ROOT = Path(__file__).parents[1]


@pytest.mark.parametrize("profile", sorted(PROFILES))
def test_a_pipeline_reads_only_what_it_has_made(profile):
    made = {"manifest": Source}
    for stage in triplets(profile):
        for name, record in (stage.reads | stage.lookup_tables).items():
            assert set(schema(record).names) <= set(schema(made[name]).names), f"{stage.name()} reads {name}"
        made[stage.name()] = stage.writes


@pytest.mark.parametrize("stage", triplets(), ids=lambda s: s.name())
def test_every_stage_is_a_value_with_defaults_and_a_first_line(stage):
    assert is_dataclass(stage)
    assert type(stage)() is not None
    assert hash(stage)
    assert all(f.type in TYPES for f in fields(stage))
    assert (type(stage).__doc__ or "").strip()


def test_the_command_line_prints_the_first_line_of_every_stage():
    first_lines = [(s.name(), (type(s).__doc__ or "").strip().splitlines()[0]) for s in triplets()]
    assert list(commands.stage_summaries().items()) == first_lines


def test_the_list_of_commands_is_printed_without_numpy_pyarrow_and_any_stage():
    script = "import sys; from pipelines.cli.main import parser; parser().format_help(); print(*sys.modules)"
    out = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True)
    loaded = out.stdout.split()

    assert "pipelines.cli.commands" in loaded
    assert {"numpy", "pyarrow", "rich", "cv2", "stages", "a2data.records"} & set(loaded) == set()


def test_every_command_shows_its_help_without_the_heavy_packages():
    heavy = "torch ray ultralytics transformers open_clip insightface onnxruntime dlib pandas scenedetect rapidocr"
    heavy += " matplotlib skimage huggingface_hub httpx diffusers faiss peft"
    script = (
        "import sys; from pipelines.cli.main import parser; from test_prose import helps; "
        f"list(helps(parser())); print([m for m in {heavy.split()} if m in sys.modules])"
    )
    paths = os.pathsep.join([str(ROOT), str(ROOT / "tests")])
    out = subprocess.run(
        [sys.executable, "-c", script],
        env=os.environ | {"PYTHONPATH": paths},
        capture_output=True,
        text=True,
        check=True,
    )

    assert out.stdout.strip() == "[]"


def test_files_are_short_enough_to_read_in_one_sitting():
    folders = ("a2data", "stages", "model_zoo", "pipelines")
    lengths = {p: len(p.read_text().splitlines()) for folder in folders for p in (ROOT / folder).rglob("*.py")}

    assert {p.name: n for p, n in lengths.items() if n > 500} == {}


def test_the_cluster_file_passes_rays_own_validation():
    pytest.importorskip("ray")
    import yaml
    from ray.autoscaler._private.util import prepare_config, validate_config

    config = prepare_config(yaml.safe_load((ROOT / "ray_cluster.yaml").read_text()))
    validate_config(config)

    assert config["available_node_types"]["gpu"]["resources"]["GPU"] == 4


READS_ARBITRARY_OBJECTS = {
    "pickle.load": "a2data and its stages read Parquet, JSON and safetensors",
    "pickle.loads": "likewise",
    "cloudpickle.loads": "likewise",
    "joblib.load": "likewise",
    "torch.load": "say weights_only=True",
    "np.load": "say allow_pickle=False, or leave it out",
    "dcp.load": "give pipelines.train.safe_reading's Reader and Planner",
}
LAST_PARTS = {name.split(".")[-1] for name in READS_ARBITRARY_OBJECTS}


def reads_objects(path: Path) -> list[str]:
    """Calls in a file that would run what a file of a stranger holds."""
    found = []
    for node in ast.walk(ast.parse(path.read_text())):
        if not (isinstance(node, ast.Call) and getattr(node.func, "attr", "") in LAST_PARTS):  # quicker than unparse
            continue
        name = ast.unparse(node.func)
        if name not in READS_ARBITRARY_OBJECTS:
            continue
        given = {word.arg: ast.unparse(word.value) for word in node.keywords}
        safe = {
            "torch.load": given.get("weights_only") == "True",
            "np.load": given.get("allow_pickle", "False") == "False",
            "dcp.load": given.get("storage_reader", "").startswith("Reader(") and given.get("planner") == "Planner()",
        }
        if not safe.get(name, False):
            found.append(f"{path.relative_to(ROOT)}:{node.lineno}: {name}: {READS_ARBITRARY_OBJECTS[name]}")
    return found


def test_nothing_reads_a_file_that_may_name_code_to_run():
    folders = ("a2data", "stages", "model_zoo", "pipelines", "examples")
    assert [line for folder in folders for path in (ROOT / folder).rglob("*.py") for line in reads_objects(path)] == []


def test_the_search_for_unsafe_readers_finds_them(tmp_path, monkeypatch):
    monkeypatch.setattr(sys.modules[__name__], "ROOT", tmp_path)
    (tmp_path / "x.py").write_text(
        "torch.load(p)\nnp.load(p, allow_pickle=True)\ndcp.load(s, checkpoint_id=p)\npickle.loads(b)\n"
    )
    assert len(reads_objects(tmp_path / "x.py")) == 4


def test_the_picture_of_the_layout_is_drawn_from_the_imports():
    pytest.importorskip("grimp")
    from docs import layout

    assert layout.PICTURE.read_text() == layout.picture(), "run `python -m docs.layout`"


def test_a_circle_cannot_be_drawn():
    from docs import layout

    assert layout.layers({"a": {"b", "c"}, "b": {"c"}, "c": set()}) == [["a"], ["b"], ["c"]]
    with pytest.raises(ValueError, match="circle: b, c"):
        layout.layers({"a": set(), "b": {"c"}, "c": {"b"}})


def test_the_walks_through_the_code_name_files_and_functions_that_exist():
    text = (ROOT / "docs" / "architecture.md").read_text()
    walks = [re.findall(r"(?m)^\d+\. .*(?:\n   .*)*", part) for part in text.split("\n## ")[1:]]

    assert [len(walk) for walk in walks] == [10, 10, 10]
    for stop in (stop for walk in walks for stop in walk):
        for path, name in re.findall(r"`([\w/]+\.py)`(?: \(`(\w+)`\))?", stop):
            assert (ROOT / path).exists(), stop
            assert not name or re.search(rf"(?m)^(def|class) {name}\b", (ROOT / path).read_text()), stop
