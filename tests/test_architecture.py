"""The rules that no reader should have to remember."""

import subprocess
import sys
from dataclasses import fields, is_dataclass
from pathlib import Path

import pytest

from a2data.arrow import schema
from a2data.records import Source
from pipelines.settings import TYPES
from pipelines.triplets import PROFILES, triplets

ROOT = Path(__file__).parents[1]


@pytest.mark.parametrize("profile", sorted(PROFILES))
def test_a_pipeline_reads_only_what_it_has_made(profile):
    made = {"manifest": Source}
    for stage in triplets(profile):
        for name, record in (stage.reads | stage.borrows).items():
            assert set(schema(record).names) <= set(schema(made[name]).names), f"{stage.name()} reads {name}"
        made[stage.name()] = stage.writes


@pytest.mark.parametrize("stage", triplets(), ids=lambda s: s.name())
def test_every_stage_is_a_value_with_defaults_and_a_first_line(stage):
    assert is_dataclass(stage)
    assert type(stage)() is not None
    assert hash(stage)
    assert all(f.type in TYPES for f in fields(stage))
    assert (type(stage).__doc__ or "").strip()


def test_the_command_line_starts_without_the_heavy_packages():
    heavy = "torch ray ultralytics transformers open_clip insightface onnxruntime dlib pandas scenedetect rapidocr"
    heavy += " matplotlib skimage huggingface_hub httpx diffusers faiss peft"
    script = f"import sys, pipelines.cli; print([m for m in {heavy.split()} if m in sys.modules])"
    out = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True)

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
