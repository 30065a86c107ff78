"""What must be in a checkpoint folder, and that its digest tells one from another."""

import json

import pytest

from model_zoo.a2 import checkpoint


@pytest.fixture
def folder(tmp_path):
    """Files where a checkpoint has them; no network in them."""
    for part in checkpoint.PARTS:
        (tmp_path / part).mkdir()
        (tmp_path / part / "config.json").write_text("{}")
    for part in checkpoint.NETWORKS:
        (tmp_path / part / "model.safetensors").write_bytes(part.encode())
    (tmp_path / "transformer" / "config.json").write_text(json.dumps({"in_channels": 36, "image_dim": 1280}))
    return tmp_path


def test_a_folder_with_all_parts_is_one(folder):
    assert checkpoint.check(str(folder)) == folder


def test_a_folder_is_told_which_parts_it_lacks(tmp_path):
    (tmp_path / "vae").mkdir()
    with pytest.raises(FileNotFoundError, match=r"lacks transformer/, text_encoder/, tokenizer/, image_encoder/"):
        checkpoint.check(tmp_path)


def test_a_download_that_broke_off_is_noticed(folder):
    (folder / "vae" / "model.safetensors").unlink()
    (folder / "text_encoder" / "config.json").unlink()
    with pytest.raises(FileNotFoundError, match=r"lacks text_encoder/config.json, weights in vae/. Was a download"):
        checkpoint.check(folder)


def test_a_file_that_the_index_names_must_be_there(folder):
    index = folder / "transformer" / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": {"a": "model.safetensors", "b": "model-2.safetensors"}}))
    with pytest.raises(FileNotFoundError, match="lacks weights in transformer/"):
        checkpoint.check(folder)
    (folder / "transformer" / "model-2.safetensors").write_bytes(b"b")
    checkpoint.check(folder)


@pytest.mark.parametrize(
    ("config", "sentence"),
    [
        ('{"in_channels": 16}', "is a text-to-video network.*sampling.json"),
        ('{"in_channels": 48}', "takes 48 channels and no image tokens"),
        ('{"in_channels": 36}', "takes 36 channels and no image tokens"),
        ("no json", "not a readable configuration"),
    ],
)
def test_another_transformer_is_refused(folder, config, sentence):
    (folder / "transformer" / "config.json").write_text(config)
    with pytest.raises(ValueError, match=sentence):
        checkpoint.check(folder)


def test_the_digest_is_of_what_is_in_the_files_and_not_of_where_they_are(folder, tmp_path_factory):
    once = checkpoint.digest(folder)
    (folder / "README.md").write_text("not a part")
    elsewhere = folder.rename(tmp_path_factory.mktemp("other") / "name")
    assert checkpoint.digest(elsewhere) == once
    (elsewhere / "vae" / "model.safetensors").write_bytes(b"vaf")
    assert checkpoint.digest(elsewhere) != once


@pytest.mark.parametrize("changed_byte", [0, 8 << 20, (12 << 20) + 4])
def test_of_large_files_every_stride_and_the_end_count(folder, changed_byte):
    large = bytearray((12 << 20) + 5)
    (folder / "vae" / "model.safetensors").write_bytes(large)
    once = checkpoint.digest(folder)
    large[changed_byte] = 1
    (folder / "vae" / "model.safetensors").write_bytes(large)
    assert checkpoint.digest(folder) != once
