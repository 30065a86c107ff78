"""The A2 pipeline against the released sampler, whose latents are kept as golden tensors, and against Wan."""

import json
import os
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("diffusers")


from diffusers import WanImageToVideoPipeline, WanTransformer3DModel  # noqa: E402
from safetensors import safe_open  # noqa: E402
from tiny_pipeline import pictures, pipeline, sample, tiny_parts  # noqa: E402

from model_zoo.a2 import checkpoint, references  # noqa: E402
from model_zoo.a2 import pipeline as a2  # noqa: E402
from model_zoo.a2.references import Prepared, Reference  # noqa: E402

GOLDEN = Path(os.environ.get("A2DATA_GOLDEN", Path(__file__).parents[3] / "shared" / "golden"))


class Golden:
    """The released sampler's networks and what came out of it."""

    def __init__(self, path: Path) -> None:
        with safe_open(path, "pt") as file:
            self.meta = json.loads(file.metadata()["meta"])
            self.tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118

    def network(self, prefix: str, network):
        state = {n.removeprefix(f"{prefix}."): t for n, t in self.tensors.items() if n.startswith(f"{prefix}.")}
        network.load_state_dict(state)
        return network.eval()

    def prepared(self, n: int) -> Prepared:
        return Prepared(self.tensors[f"n{n}.refs_u8"].numpy(), self.tensors[f"n{n}.clip_squares_u8"].numpy())


@pytest.fixture(scope="module")
def golden() -> Golden:
    path = GOLDEN / "a2_reference_sampler.safetensors"
    if not path.exists():
        pytest.skip("no golden tensors: set A2DATA_GOLDEN to their folder")
    return Golden(path)


@pytest.fixture(scope="module")
def tiny():
    return pipeline(tiny_parts())


@pytest.mark.parametrize("n", [2, 3])
def test_the_released_samplers_latents_are_reproduced(golden, n):
    parts = tiny_parts()
    for name, network in parts.items():
        golden.network(name, network)
    meta = golden.meta
    latents = pipeline(parts)(
        golden.prepared(n),
        num_frames=meta["num_frames"],
        num_inference_steps=meta["num_inference_steps"],
        guidance_scale=meta["guidance_scale"],
        prompt_embeds=golden.tensors[f"n{n}.prompt_embeds"],
        negative_prompt_embeds=golden.tensors[f"n{n}.negative_prompt_embeds"],
        generator=torch.Generator().manual_seed(meta["generator_seed"]),
        output_type="latent",
    ).frames
    assert (latents - golden.tensors[f"n{n}.latents_out"]).abs().max() < 1e-4


@pytest.mark.parametrize("n", [1, 2, 3, 4])
def test_as_many_references_as_there_is_room_for_give_a_video_without_their_frames(tiny, n):
    video = sample(tiny, pictures(n), frames=21, output_type="np")
    assert video.shape == (1, 21 - 4 * n, 32, 48, 3)
    assert np.isfinite(video).all()


def test_a_seed_says_the_video_and_another_reference_changes_it(tiny):
    once, again, other = (sample(tiny, p, output_type="latent") for p in (pictures(2), pictures(2), pictures(3)))
    assert torch.equal(once, again)
    assert not torch.allclose(once, other)


def test_one_reference_is_wans_condition_of_a_first_frame_exactly(tiny):
    prepared = pictures(1)
    image = references.as_tensor(prepared.frames)
    wan = pipeline({n: getattr(tiny, n) for n in ("transformer", "vae", "image_encoder")}, WanImageToVideoPipeline)
    noise = torch.zeros(1, 16, 5, 4, 6)
    _, theirs = wan.prepare_latents(image, 1, 16, 32, 48, 17, torch.float32, torch.device("cpu"), None, noise)
    assert torch.equal(references.condition(tiny.vae, image, 17), theirs)


def test_a_released_folder_is_loaded_part_by_part_and_a_wrong_one_is_told_what_it_lacks(tmp_path, tiny):
    tiny.transformer.save_pretrained(tmp_path / "transformer")
    with pytest.raises(
        FileNotFoundError, match=r"lacks vae/, text_encoder/, tokenizer/, image_encoder/, image_processor/"
    ):
        a2.load(tmp_path)


def test_a_whole_folder_samples_what_its_parts_sample(tmp_path, tiny):
    from tokenizers import Tokenizer, models
    from transformers import PreTrainedTokenizerFast, UMT5Config, UMT5EncoderModel

    words = Tokenizer(models.WordLevel({"<pad>": 0, "</s>": 1, "a": 2, "<unk>": 3}, unk_token="<unk>"))
    parts = {
        **{n: getattr(tiny, n) for n in ("transformer", "vae", "image_encoder", "image_processor")},
        "tokenizer": PreTrainedTokenizerFast(
            tokenizer_object=words, pad_token="<pad>", eos_token="</s>", unk_token="<unk>"
        ),
        "text_encoder": UMT5EncoderModel(
            UMT5Config(d_model=64, d_ff=64, num_layers=1, num_heads=2, d_kv=32, vocab_size=8)
        ),
    }
    for name, part in parts.items():
        part.save_pretrained(tmp_path / name)
    config = json.loads((tmp_path / "transformer" / "config.json").read_text())
    # as released
    (tmp_path / "transformer" / "config.json").write_text(json.dumps(config | {"_class_name": "A2Model"}))
    loaded = a2.load(tmp_path, dtype=torch.float32)
    loaded.set_progress_bar_config(disable=True)
    theirs, ours = (sample(pipe, pictures(2), output_type="latent") for pipe in (loaded, tiny))
    # not bit-identical: transformers chooses another attention for loaded networks
    assert torch.allclose(theirs, ours, atol=1e-4)
    assert loaded(pictures(1), "a", num_frames=9, num_inference_steps=1).frames.shape == (1, 5, 32, 48, 3)


def test_a_text_to_video_checkpoint_is_refused(tmp_path):
    for part in checkpoint.PARTS:
        (tmp_path / part).mkdir()
    WanTransformer3DModel(
        in_channels=16, num_layers=1, num_attention_heads=2, attention_head_dim=12, text_dim=8, ffn_dim=8
    ).save_pretrained(tmp_path / "transformer")
    with pytest.raises(ValueError, match=r"is a text-to-video network, which ignores references"):
        a2.load(tmp_path)


@pytest.mark.parametrize(
    ("size", "frames", "n", "sentence"),
    [
        ((30, 48), 17, 1, "divisible by 16; 32 x 48 is close"),
        ((32, 48), 18, 1, r"4 n \+ 1, such as 17 or 21"),
        ((32, 48), 9, 3, "3 references take 12 of 9 frames"),
    ],
)
def test_sizes_that_the_network_cannot_take_are_a_sentence(tiny, size, frames, n, sentence):
    with pytest.raises(ValueError, match=sentence):
        sample(tiny, pictures(n, *size), frames)


def test_several_prompts_are_refused(tiny):
    with pytest.raises(ValueError, match="several prompts in one call"):
        tiny(pictures(1), ["a", "b"], num_frames=9)


def test_the_released_grid_ends_where_its_timesteps_did():
    schedule = a2.scheduler("unipc-released")
    schedule.set_timesteps(50)
    assert schedule.timesteps[:5].tolist() == [999, 997, 994, 991, 989]
    assert schedule.timesteps[-2:].tolist() == [249, 140]


@pytest.mark.parametrize("name", ["unipc", "unipc-released", "euler"])
def test_every_schedule_samples_and_more_shift_stays_longer_in_noise(tiny, name):
    early = []
    for shift in (1.0, 3.0, 8.0, 12.0):
        schedule = a2.scheduler(name, shift)
        schedule.set_timesteps(50)
        early.append(int((schedule.sigmas > 0.9).sum()))
    assert early == sorted(early)
    assert early[0] < early[-1]
    parts = {n: getattr(tiny, n) for n in ("transformer", "vae", "image_encoder")}
    assert np.isfinite(sample(pipeline(parts, schedule=a2.scheduler(name)), pictures(1), 9)).all()


def test_an_unknown_schedule_is_refused():
    with pytest.raises(ValueError, match="choose unipc, unipc-released, euler, lightx2v"):
        a2.scheduler("ddim")


def test_references_reach_the_network_in_a2s_order(tiny):
    human, thing = (np.full((40, 40, 3), v, np.uint8) for v in (10, 200))
    one = references.prepare([Reference("object", thing), Reference("human", human)], 32, 48)
    two = references.prepare([Reference("human", human), Reference("object", thing)], 32, 48)
    assert torch.equal(sample(tiny, one, output_type="latent"), sample(tiny, two, output_type="latent"))


# -- guidance on references --------------------------------------------------------------------------------------------


def by_hand(pipe, prepared, s: float, g: float, steps: int = 3):
    """Latents of a plain loop of three looks a step, with Euler's method written out."""
    words = torch.Generator().manual_seed(1)
    prompt, negative = (torch.randn(1, 512, 64, generator=words) for _ in range(2))
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(1, 16, 5, 4, 6, generator=generator)
    given = references.condition(pipe.vae, references.as_tensor(prepared.frames), 17, generator)
    tokens = references.image_tokens(pipe.image_encoder, pipe.image_processor, prepared.squares)
    grey = references.encode(pipe.vae, torch.zeros(1, 3, 17, 32, 48))
    nothing = torch.cat([torch.zeros(1, 4, 5, 4, 6), grey], 1)

    def look(condition, t, text, image):
        return pipe.transformer(torch.cat([x, condition], 1), t[None], text, image).sample

    schedule = a2.scheduler("euler")
    schedule.set_timesteps(steps)
    for t, sigma, after in zip(schedule.timesteps, schedule.sigmas[:-1], schedule.sigmas[1:], strict=True):
        none = look(nothing, t, negative, torch.zeros_like(tokens))
        shown, asked = look(given, t, negative, tokens), look(given, t, prompt, tokens)
        x = x + (after - sigma) * (none + s * (shown - none) + g * (asked - shown))
    return x


@pytest.mark.parametrize(("s", "g"), [(1.0, 5.0), (3.0, 5.0), (0.0, 2.0), (2.5, 1.5)])
def test_guidance_on_references_is_the_sum_of_three_looks(s, g):
    pipe = pipeline(tiny_parts(), schedule=a2.scheduler("euler"))
    made = sample(pipe, pictures(2), steps=3, guidance_scale=g, reference_guidance=s, output_type="latent")
    with torch.no_grad():
        wanted = by_hand(pipe, pictures(2), s, g)
    assert (made - wanted).abs().max() < 1e-4 * wanted.abs().max()
    assert not pipe.transformer._diffusers_hook.hooks


def test_guidance_on_references_of_one_changes_nothing_and_more_of_it_does(tiny):
    plain, one, three = (
        sample(tiny, pictures(2), output_type="latent", **more)
        for more in ({}, {"reference_guidance": 1.0}, {"reference_guidance": 3.0})
    )
    assert torch.equal(plain, one)
    assert (plain - three).abs().max() > 1e-3


def test_guidance_on_references_looks_three_times_a_step_and_once_less_without(tiny):
    counted = []
    hook = tiny.transformer.blocks[0].register_forward_pre_hook(lambda *_: counted.append(1))
    sample(tiny, pictures(1), steps=2)
    assert len(counted) == 4
    sample(tiny, pictures(1), steps=2, reference_guidance=2.0)
    assert len(counted) == 4 + 6
    hook.remove()


def test_guidance_on_references_without_guidance_on_the_prompt_is_refused(tiny):
    with pytest.raises(ValueError, match="needs a guidance scale above 1, not 1"):
        sample(tiny, pictures(1), guidance_scale=1.0, reference_guidance=2.0)


def test_a_run_that_breaks_leaves_no_guidance_behind(tiny):
    def stop(*_):
        raise RuntimeError("stop")

    with pytest.raises(RuntimeError, match="stop"):
        sample(tiny, pictures(1), reference_guidance=2.0, callback_on_step_end=stop)
    assert not tiny.transformer._diffusers_hook.hooks
    assert tiny._squares is None


def test_how_many_references_there_were_does_not_show_where_there_are_none(tiny):
    nothing = references.no_references(tiny.vae, 17, 32, 48)
    assert nothing.shape == (1, 20, 5, 4, 6)
    assert not nothing[:, :4].any()
    x, words = torch.randn(1, 16, 5, 4, 6), torch.randn(1, 512, 64)
    with torch.no_grad():
        one, three = (
            tiny.transformer(torch.cat([x, nothing], 1), torch.tensor([500]), words, torch.zeros(1, 257 * n, 64)).sample
            for n in (1, 3)
        )
    assert torch.allclose(one, three, atol=1e-5)
    assert one.isfinite().all()
