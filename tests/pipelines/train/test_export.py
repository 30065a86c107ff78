"""Exports in the layout of stock diffusers."""

import json
import sys

import pytest

pytest.importorskip("diffusers")
import tiny_a2
import torch

import model_zoo  # noqa: F401  # makes the torchvision of PyPI importable
from model_zoo.a2 import pipeline, tiny
from pipelines.train import export


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A checkpoint with networks of the real classes, as an export leaves it."""
    root = tiny_a2.write(tmp_path_factory.mktemp("export") / "model")
    pipeline.scheduler().save_pretrained(root / "scheduler")
    (root / "model_index.json").write_text(json.dumps(export.model_index(root)))
    return root


def test_stock_diffusers_loads_an_export(folder):
    from diffusers import DiffusionPipeline, WanImageToVideoPipeline

    for loader in (DiffusionPipeline, WanImageToVideoPipeline):
        loaded = loader.from_pretrained(folder, local_files_only=True)
        assert type(loaded) is WanImageToVideoPipeline
        ours = pipeline.load(folder, dtype=torch.float32)
        for name in ("transformer", "vae", "text_encoder", "image_encoder"):
            mine, theirs = getattr(ours, name).state_dict(), getattr(loaded, name).state_dict()
            assert mine.keys() == theirs.keys()
            assert all(torch.equal(mine[key], theirs[key].float()) for key in mine), name


def test_stock_diffusers_refuses_the_tiny_autoencoder_by_name(folder, monkeypatch):
    from diffusers import DiffusionPipeline

    about = json.loads((folder / "vae" / "config.json").read_text())
    (folder / "vae" / "config.json").write_text(json.dumps(about | {"_class_name": tiny.PatchAutoencoder.__name__}))
    index = export.model_index(folder)
    (folder / "vae" / "config.json").write_text(json.dumps(about))
    assert index["vae"] == ["model_zoo.a2.tiny", "PatchAutoencoder"]
    copy = folder.parent / "tiny"
    copy.mkdir()
    (copy / "model_index.json").write_text(json.dumps(index))
    for part in folder.iterdir():
        if part.is_dir():
            (copy / part.name).symlink_to(part)
    monkeypatch.delitem(sys.modules, tiny.__name__)  # as in a process without a2data
    with pytest.raises(ValueError, match=r"model_zoo\.a2\.tiny"):
        DiffusionPipeline.from_pretrained(copy, local_files_only=True)


def test_a_tokenizer_of_another_version_of_transformers_is_loaded_as_a_fast_one(folder):
    path = folder / "tokenizer" / "tokenizer_config.json"
    about = path.read_text()
    path.write_text(json.dumps(json.loads(about) | {"tokenizer_class": "TokenizerOfTomorrow"}))
    assert export.model_index(folder)["tokenizer"] == ["transformers", "PreTrainedTokenizerFast"]
    path.write_text(about)
