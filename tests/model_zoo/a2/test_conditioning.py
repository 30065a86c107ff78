"""The conditionings "appended" and "vace" against their authors' code, and the inputs of training against those of sampling."""

import json

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("diffusers")

import model_zoo  # noqa: E402, F401  # makes the torchvision of PyPI importable

# isort: split
import tiny_a2  # noqa: E402
from diffusers import WanTransformer3DModel, WanVACEPipeline, WanVACETransformer3DModel  # noqa: E402
from PIL import Image  # noqa: E402
from safetensors.torch import load_file, save_file  # noqa: E402

from benchmarks import conditioning_golden as golden  # noqa: E402
from model_zoo.a2 import checkpoint, conditioning, objective, references, t2v_pipelines, transformer  # noqa: E402
from model_zoo.a2 import pipeline as a2  # noqa: E402
from model_zoo.a2.references import Prepared, Reference  # noqa: E402


@pytest.fixture(scope="module")
def kept():
    return load_file(golden.GOLDEN)


def shown(count=2, height=32, width=48, seed=0) -> Prepared:
    rng = np.random.default_rng(seed)
    return Prepared(rng.integers(0, 256, (count, height, width, 3), np.uint8), np.empty((count, 0, 0, 3), np.uint8))


def words(dim=16):
    return {
        name: torch.randn(1, 512, dim, generator=torch.Generator().manual_seed(n))
        for n, name in enumerate(("prompt_embeds", "negative_prompt_embeds"))
    }


def test_pictures_are_resized_as_in_skyreels_v3(kept):
    given = [Reference("object", kept[f"picture{n}"].numpy()) for n in range(2)]
    made = references.prepare(given, golden.HEIGHT, golden.WIDTH, "appended")
    for n in range(2):
        assert np.array_equal(made.frames[n], kept[f"shown{n}"].numpy())


@pytest.mark.parametrize("kind", ["appended", "vace"])
def test_latents_are_those_of_skyreels_v3_and_of_diffusers_vace(kind):
    assert golden.difference(kind) < 1e-5


@torch.no_grad()
def test_appended_references_follow_the_loop_of_phantom():
    """Phantom's generate(): the noisy frames, then the references, at every step; three branches; the tail is dropped."""
    torch.manual_seed(0)
    network = WanTransformer3DModel(**golden.NETWORK).eval()
    pipe, given = golden.pipeline(t2v_pipelines.AppendedPipeline, network), shown()
    pipe.scheduler = a2.scheduler("euler", 5.0)
    noise, text = torch.randn(1, 16, 3, 4, 6), words()
    made = pipe(
        given, num_frames=9, num_inference_steps=3, guidance_scale=7.5, reference_guidance=5.0, latents=noise,
        output_type="latent", **text,
    ).frames  # fmt: skip
    latents = conditioning.reference_latents(pipe.vae, given)[None]
    pipe.scheduler.set_timesteps(3)
    x = torch.cat([noise, torch.zeros_like(latents)], 2)
    for t in pipe.scheduler.timesteps:

        def branch(references, name, x=x, t=t):
            seen = torch.cat([x[:, :, :-2], references], 2)
            return network(seen, t[None], text[name], return_dict=False)[0]

        asked, image = branch(latents, "prompt_embeds"), branch(latents, "negative_prompt_embeds")
        none = branch(torch.zeros_like(latents), "negative_prompt_embeds")
        x = pipe.scheduler.step(none + 5.0 * (image - none) + 7.5 * (asked - image), t, x, return_dict=False)[0]
    assert (made - x[:, :, :-2]).abs().max() < 1e-4


def test_vace_resizes_pictures_as_diffusers_up_to_8_bits():
    picture = np.random.default_rng(0).integers(0, 256, (20, 36, 3), np.uint8)
    made = references.prepare([Reference("human", picture)], 32, 48, "vace").frames
    stock = golden.pipeline(WanVACEPipeline, WanVACETransformer3DModel(**golden.VACE))
    pixels = stock.video_processor.preprocess(Image.fromarray(picture), None, None)
    scale = min(32 / 20, 48 / 36)
    theirs = torch.nn.functional.interpolate(
        torch.from_numpy(picture).movedim(-1, 0)[None] / 127.5 - 1,
        size=(int(20 * scale), int(36 * scale)),
        mode="bilinear",
    )
    assert pixels.shape[1] == 3
    top = (32 - int(20 * scale)) // 2
    inner = references.as_tensor(made)[:, :, top : top + int(20 * scale)]
    assert (inner - theirs).abs().max() <= 1 / 255 + 1e-6
    assert (references.as_tensor(made)[:, :, :top] == 1).all()


@torch.no_grad()
@pytest.mark.parametrize("kind", ["appended", "vace"])
def test_training_and_sampling_give_the_network_identical_inputs(kind):
    torch.manual_seed(0)
    network = transformer.network_class(kind)(**(golden.VACE if kind == "vace" else golden.NETWORK)).eval()
    pipe = golden.pipeline(
        {"appended": t2v_pipelines.AppendedPipeline, "vace": t2v_pipelines.VacePipeline}[kind], network
    )
    given, seen = shown(), []
    network.patch_embedding.register_forward_pre_hook(lambda _, args: seen.append(args[0]))
    if kind == "vace":
        network.vace_patch_embedding.register_forward_pre_hook(lambda _, args: seen.append(args[0]))
    text = words()
    pipe(given, num_frames=9, num_inference_steps=1, guidance_scale=1.0, output_type="latent", **text)
    sampled, nothing = seen[:], references.no_references(pipe.vae, 9, 32, 48)[0]
    stored = conditioning.reference_latents(pipe.vae, given)
    noise = sampled[0] if kind == "vace" else sampled[0][:, :, :3]
    seen.clear()
    ready = conditioning.stored_to_network_condition(kind, stored, nothing)[None]
    said = objective.predict(network, noise, 1.0, ready, text["prompt_embeds"], None)
    assert said.shape == noise.shape
    assert len(seen) == len(sampled)
    assert all(torch.equal(one, other) for one, other in zip(seen, sampled, strict=True))


def test_slots_are_filled_with_zeros_and_too_many_references_are_refused():
    made = conditioning.reference_latents(golden.Averages(), shown(2), slots=3)
    assert made.shape == (16, 3, 4, 6)
    assert not made[:, 2].any()
    assert conditioning.count("appended", made) == 2
    with pytest.raises(ValueError, match=r"2 references, but the network has 1 slots"):
        conditioning.reference_latents(golden.Averages(), shown(2), slots=1)


@pytest.fixture
def folder(tmp_path):
    """A checkpoint for text-to-video: that of the tests without its image encoder."""
    root = tiny_a2.write(tmp_path / "t2v")
    for part in ("image_encoder", "image_processor"):
        (root / part).rename(tmp_path / part)
    for file in (root / "transformer").iterdir():
        file.unlink()
    WanTransformer3DModel(**golden.NETWORK).save_pretrained(root / "transformer")
    return root


def pipeline_of(folder):
    return a2.load(folder, dtype=torch.float32)


def test_a_text_to_video_folder_is_sampled_only_where_it_says_that_it_takes_references(folder):
    with pytest.raises(ValueError, match=r"ignores references unless .*appended"):
        pipeline_of(folder)
    (folder / "sampling.json").write_text(json.dumps({"conditioning": "appended"}))
    pipe = pipeline_of(folder)
    assert type(pipe) is t2v_pipelines.AppendedPipeline
    assert pipe(shown(), "a", num_frames=9, num_inference_steps=1).frames.shape == (1, 9, 32, 48, 3)
    (folder / "sampling.json").write_text(json.dumps({"conditioning": "vase"}))
    with pytest.raises(ValueError, match=r"conditioning must be one of a2, appended, vace"):
        pipeline_of(folder)


def test_a_folder_of_skyreels_v3_has_four_slots_and_the_settings_of_its_authors(folder):
    (folder / "model_index.json").write_text(json.dumps({"_class_name": "WanSkyReelsA2WanT2VPipeline"}))
    config = json.loads((folder / "transformer" / "config.json").read_text())
    config |= {"_class_name": "SkyReelsA2WanI2v3DModel"}
    (folder / "transformer" / "config.json").write_text(json.dumps(config))
    assert pipeline_of(folder).reference_slots == 4
    assert checkpoint.sampling(folder)["guidance_scale"] == 1.0


def test_a_folder_of_vace_is_sampled_with_vace(folder):
    for file in (folder / "transformer").iterdir():
        file.unlink()
    WanVACETransformer3DModel(**golden.VACE).save_pretrained(folder / "transformer")
    pipe = pipeline_of(folder)
    assert type(pipe) is t2v_pipelines.VacePipeline
    assert pipe(shown(1), "a", num_frames=9, num_inference_steps=1).frames.shape == (1, 9, 32, 48, 3)


WAN_NAMES = {  # of diffusers, in the order in which they are replaced
    "condition_embedder.time_embedder.linear_1": "time_embedding.0",
    "condition_embedder.time_embedder.linear_2": "time_embedding.2",
    "condition_embedder.text_embedder.linear_1": "text_embedding.0",
    "condition_embedder.text_embedder.linear_2": "text_embedding.2",
    "condition_embedder.time_proj": "time_projection.1",
    "attn1.to_q": "self_attn.q",
    "attn1.to_k": "self_attn.k",
    "attn1.to_v": "self_attn.v",
    "attn1.to_out.0": "self_attn.o",
    "attn1.norm": "self_attn.norm",
    "attn2.to_q": "cross_attn.q",
    "attn2.to_k": "cross_attn.k",
    "attn2.to_v": "cross_attn.v",
    "attn2.to_out.0": "cross_attn.o",
    "attn2.norm": "cross_attn.norm",
    "ffn.net.0.proj": "ffn.0",
    "ffn.net.2": "ffn.2",
    "norm2": "norm3",
    "proj_out": "head.head",
}


def wan_name(name: str) -> str:
    if name.endswith("scale_shift_table"):
        return "head.modulation" if name == "scale_shift_table" else name.replace("scale_shift_table", "modulation")
    for ours, theirs in WAN_NAMES.items():
        name = name.replace(ours, theirs)
    return name


def test_weights_that_do_not_fit_their_config_are_refused_with_folder_and_weight(folder):
    place = folder / "transformer" / "config.json"
    config = json.loads(place.read_text())
    place.write_text(json.dumps(config | {"text_dim": 2 * config["text_dim"]}))
    with pytest.raises(ValueError, match=r"transformer do not fit its config\.json: .*text_embedder\.linear_1\.weight"):
        transformer.load_transformer(folder, torch.float32)


@pytest.mark.parametrize(("blocks", "fault"), [(+1, "they lack"), (-1, "they also have")])
def test_weights_of_another_number_of_blocks_are_refused(folder, blocks, fault):
    place = folder / "transformer" / "config.json"
    config = json.loads(place.read_text())
    place.write_text(json.dumps(config | {"num_layers": config["num_layers"] + blocks}))
    with pytest.raises(ValueError, match=rf"transformer do not fit its config\.json: {fault} \d+, such as blocks\."):
        transformer.load_transformer(folder, torch.float32)


@pytest.mark.parametrize("published", ["Phantom-Wan-1.3B.pth", "model.safetensors"])
def test_weights_under_the_names_of_wan_are_loaded(folder, published):
    """As Phantom (torch.save) and RefAlign (safetensors, with weights that only its training used) publish theirs."""
    torch.manual_seed(1)
    network = WanTransformer3DModel(**golden.NETWORK)
    state = {wan_name(name): tensor.contiguous() for name, tensor in network.state_dict().items()}
    place = folder / "transformer" / published
    (folder / "transformer" / "diffusion_pytorch_model.safetensors").unlink()
    if published.endswith(".pth"):
        torch.save(state, place)
    else:
        save_file(state | {"input_mlp.0.weight": torch.zeros(2, 2)}, place)
    made = transformer.load_transformer(folder, torch.float32).state_dict()
    assert all(torch.equal(made[name], tensor) for name, tensor in network.state_dict().items())

    save_file(
        {name: tensor for name, tensor in state.items() if "ffn.0" not in name}, place.with_suffix(".safetensors")
    )
    place.with_suffix(".pth").unlink(missing_ok=True)
    with pytest.raises(ValueError, match=r"lacks 2 weights of this transformer, such as blocks\.0\.ffn\.net\.0\.proj"):
        transformer.load_transformer(folder, torch.float32)


def test_another_conditioning_than_that_of_the_checkpoint_is_refused(folder):
    with pytest.raises(ValueError, match=r"as 'appended', but the samples are encoded for 'vace': use --conditioning"):
        checkpoint.check_conditioning(folder, "vace")
    with pytest.raises(ValueError, match=r"unknown conditioning 'head': choose a2, appended, vace"):
        checkpoint.check_conditioning(folder, "head")
