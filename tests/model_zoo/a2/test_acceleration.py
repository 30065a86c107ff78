"""Caches, backends and tiles switched on: they compute less, or the same, and what cannot be is a sentence."""

import json
import re

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("diffusers")


from diffusers import MagCacheConfig  # noqa: E402
from tiny_a2 import write  # noqa: E402
from tiny_pipeline import pictures, pipeline, sample, tiny_parts  # noqa: E402

from model_zoo.a2 import acceleration  # noqa: E402
from model_zoo.a2 import pipeline as a2  # noqa: E402
from model_zoo.a2.parallel import ParallelGroups  # noqa: E402


def looks(pipe, block: int, steps: int = 6, **more):
    """Latents, and how often a block's attention computed."""
    counted = []
    hook = pipe.transformer.blocks[block].attn1.to_q.register_forward_pre_hook(lambda *_: counted.append(1))
    made = sample(pipe, pictures(1), frames=9, steps=steps, output_type="latent", **more)
    hook.remove()
    return made, len(counted)


@pytest.fixture(scope="module")
def pipe():
    return pipeline(tiny_parts())


@pytest.fixture(scope="module")
def exact(pipe):
    return looks(pipe, 1)[0]


def test_a_first_block_cache_skips_the_others_where_the_first_hardly_changes(pipe, exact):
    acceleration.cache(pipe.transformer, "first-block", threshold=1e-9)
    made, computed = looks(pipe, 1)
    assert torch.equal(made, exact)
    assert computed == 12

    acceleration.cache(pipe.transformer, "first-block", threshold=9.0)
    made, computed = looks(pipe, 1)
    assert computed == 2  # the first step, with and without the prompt
    assert not torch.equal(made, exact)
    again, computed = looks(pipe, 1)
    assert torch.equal(made, again)  # nothing is left of the video before
    assert computed == 2

    acceleration.cache(pipe.transformer, "")
    assert torch.equal(looks(pipe, 1)[0], exact)


def test_taylorseer_computes_the_first_steps_and_one_of_each_interval(pipe, exact):
    acceleration.cache(pipe.transformer, "taylorseer", interval=3)
    made, computed = looks(pipe, 1, steps=9)
    again, _ = looks(pipe, 1, steps=9)
    acceleration.cache(pipe.transformer, "")
    assert computed == 2 * (3 + 2)  # steps 0, 1, 2 and then one of three
    assert torch.equal(made, again)


def test_magnitudes_are_those_that_diffusers_prints(pipe, exact, capsys):
    with acceleration.MagCacheCalibration(pipe.transformer, num_branches=2) as heard:
        made, _ = looks(pipe, 1)
    assert torch.equal(made, exact)

    pipe.transformer.enable_cache(MagCacheConfig(calibrate=True, num_inference_steps=6))
    looks(pipe, 1)
    acceleration.cache(pipe.transformer, "")
    asked, shown = (json.loads(line) for line in capsys.readouterr().out.splitlines() if line.startswith("[1"))
    assert heard.ratios() == pytest.approx([(a + b) / 2 for a, b in zip(asked, shown, strict=True)], abs=1e-4)


def test_a_mag_cache_reuses_what_its_ratios_say_hardly_changes(pipe, exact):
    acceleration.cache(pipe.transformer, "mag", ratios=[0.5] * 6, steps=6)
    made, computed = looks(pipe, 1)
    assert torch.equal(made, exact)
    assert computed == 12

    acceleration.cache(pipe.transformer, "mag", ratios=[1.0] * 6, steps=10)
    made, computed = looks(pipe, 1, steps=10)
    again, _ = looks(pipe, 1, steps=10)
    acceleration.cache(pipe.transformer, "")
    assert computed == 2 * (2 + 2)  # the first fifth, and then one of four
    assert torch.equal(made, again)


def test_a_cache_keeps_the_three_looks_of_guidance_on_references_apart(pipe):
    exact, _ = looks(pipe, 1, reference_guidance=3.0)
    acceleration.cache(pipe.transformer, "first-block", threshold=1e-9)
    made, computed = looks(pipe, 1, reference_guidance=3.0)
    acceleration.cache(pipe.transformer, "")
    assert torch.equal(made, exact)
    assert computed == 18


@pytest.mark.parametrize(
    ("ask", "sentence"),
    [
        (
            lambda _: acceleration.cache(pipeline(tiny_parts()).transformer, "tea"),
            "unknown cache 'tea': choose first-block",
        ),
        (lambda _: acceleration.check_attention("tea", "cpu"), "--attention-backend tea: diffusers has flash"),
        (lambda _: acceleration.check_attention("sage", "cpu"), "--attention-backend sage needs a GPU"),
        (lambda folder: acceleration.check_tiles(folder), "is a PatchAutoencoder, which does not support tiling"),
    ],
)
def test_what_cannot_be_is_a_sentence(tmp_path, ask, sentence):
    (tmp_path / "vae").mkdir()
    (tmp_path / "vae" / "config.json").write_text(json.dumps({"_class_name": "PatchAutoencoder"}))
    with pytest.raises(ValueError, match=sentence):
        ask(tmp_path)


def test_without_torchao_weights_in_8_bits_are_refused_by_name(monkeypatch):
    monkeypatch.setattr(acceleration, "find_spec", lambda name: None)
    with pytest.raises(
        ValueError, match="--quantization int8 needs torchao, which is not installed: pip install torchao"
    ):
        acceleration.quantisation("int8")
    assert acceleration.quantisation("") is None


def test_offloading_moves_no_whole_network_and_samples_the_same(tmp_path, monkeypatch):
    def latents(pipe):
        told = {"num_frames": 9, "num_inference_steps": 2, "output_type": "latent"}
        return pipe(pictures(1), "a woman", generator=torch.Generator().manual_seed(0), **told).frames

    folder = write(tmp_path)
    exact = latents(a2.load(folder, dtype=torch.float32))

    monkeypatch.setattr(a2.WanA2Pipeline, "to", lambda *_: pytest.fail("the whole pipeline went to the device"))
    made = a2.load(folder, dtype=torch.float32, group_offload=True)
    layers = [*made.transformer.blocks, *made.text_encoder.encoder.block]
    layers += [layer for name, layer in made.image_encoder.named_modules() if re.fullmatch(r".*layers\.\d+", name)]
    assert len(layers) == 1 + 1 + 2
    for layer in layers:  # each goes by itself, when it is used
        assert layer._diffusers_hook.get_hook("group_offloading") is not None
    assert torch.equal(latents(made), exact)


def test_another_backend_and_tiles_sample_the_same(pipe, exact):
    other = pipeline(tiny_parts())
    acceleration.apply(other, ParallelGroups(), attention="_native_math", tiled=True)
    assert (looks(other, 1)[0] - exact).abs().max() < 1e-4
    assert other.vae.use_tiling
