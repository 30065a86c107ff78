"""Tiny networks of the real classes, with the real processors, saved and loaded as the published ones are."""

import json

import numpy as np
import pytest

from model_zoo import cards
from model_zoo.caption import qwen_vl, schema
from model_zoo.caption import skycaptioner as trained

torch = pytest.importorskip("torch")
pytest.importorskip("jsonschema")
transformers = pytest.importorskip("transformers")
from tiny_qwen import TAUGHT, build, teach  # noqa: E402


@pytest.fixture(scope="module", params=["qwen2.5", "qwen3"])
def tiny(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp(request.param)
    build(request.param, folder)
    return folder


FRAMES = np.random.default_rng(0).integers(0, 255, (20, 64, 128, 3), np.uint8)


def question(frames) -> list[dict]:
    content = [{"type": "text", "text": "what is this"}, schema.frames_part(frames, 10.0)]
    return [{"role": "user", "content": content}]


def test_an_answer_that_is_not_a_caption_is_a_named_failure(tiny, monkeypatch):
    monkeypatch.setattr(qwen_vl, "MAX_TOKENS", 6)
    captioner = cards.load(f"qwen-vl:{tiny}")
    with pytest.raises(ValueError, match=r"no usable answer .*(cut off|not JSON)"):
        captioner(FRAMES, 10.0, [])


def test_a_clip_is_captioned_the_same_each_time_and_apart_from_others(tiny, monkeypatch):
    monkeypatch.setattr(qwen_vl, "MAX_TOKENS", 8)
    ask = qwen_vl.chat_client(cards.card(f"qwen-vl:{tiny}"), "cpu")
    first = ask(question(FRAMES), None)
    ask(question(255 - FRAMES), None)
    assert ask(question(FRAMES), None) == first
    assert not first.whole  # a network that knows nothing does not know where to end


@pytest.mark.parametrize("shape", [(64, 128), (128, 64), (96, 96)])
def test_the_network_sees_the_frames_at_their_aspect_ratio_and_all_of_them(tiny, shape):
    processor = transformers.AutoProcessor.from_pretrained(tiny, local_files_only=True)
    frames = np.zeros((20, *shape, 3), np.uint8)
    _, high, wide = qwen_vl.prepare_inputs(processor, question(frames))["video_grid_thw"][0].tolist()
    assert abs(np.log(wide / high) - np.log(shape[1] / shape[0])) < 0.3  # patches are coarse
    assert qwen_vl.prepare_inputs(processor, question(frames))["video_grid_thw"][0][0] == schema.FRAMES // 2


@pytest.mark.parametrize(("frames", "fps"), [(300, 30.0), (75, 15.0), (20, 24.0), (3, 15.0), (45_000, 30.0)])
def test_a_clip_is_sampled_as_the_authors_sample_videos(frames, fps):
    processor = transformers.Qwen3VLVideoProcessor()
    about = transformers.video_utils.VideoMetadata(total_num_frames=frames, fps=fps)
    at = np.unique(processor.sample_frames(about))
    assert qwen_vl.num_sampled_frames(frames, fps) == len(at)
    shown = schema.frames_part(
        np.zeros((min(frames, 300), 4, 4, 3), np.uint8), fps, qwen_vl.num_sampled_frames(min(frames, 300), fps)
    )
    assert frames > 300 or np.rint(np.array(shown["seconds"]) * fps).tolist() == at.tolist()


def test_skycaptioner_sees_the_patches_and_seconds_of_its_training(tmp_path):
    build("qwen2.5", tmp_path)
    processor = transformers.AutoProcessor.from_pretrained(tmp_path, local_files_only=True)
    processor.video_processor = transformers.Qwen2VLVideoProcessor()
    content = [trained.frames_part(FRAMES), {"type": "text", "text": "what is this"}]
    inputs = qwen_vl.prepare_inputs(processor, [{"role": "user", "content": content}])
    # 16 frames in pairs, 420 x 364 px (the multiples of 28 next to 420 x 360) in patches of 14
    assert inputs["video_grid_thw"].tolist() == [[8, 30, 26]]
    assert [float(s) for s in inputs["second_per_grid_ts"]] == [1.0]
    said = processor.tokenizer.decode(inputs["input_ids"][0])
    assert said.index("<|vision_start|>") < said.index("what is this")


def test_a_picture_drawn_on_the_left_is_on_the_left_of_the_patches(tiny):
    processor = transformers.AutoProcessor.from_pretrained(tiny, local_files_only=True)
    frames = np.zeros((4, 64, 128, 3), np.uint8)
    frames[:, :, :64] = 255
    inputs = qwen_vl.prepare_inputs(processor, question(frames))
    _, high, wide = inputs["video_grid_thw"][0].tolist()
    light = inputs["pixel_values_videos"].mean(1).reshape(-1, high // 2, wide // 2, 2, 2)  # merged two by two
    light = light.transpose(-3, -2).reshape(-1, high, wide)
    assert (light[..., : wide // 2] > 0.9).all()
    assert (light[..., wide // 2 :] < 0).all()


def test_words_alone_can_be_asked_too(tiny, monkeypatch):
    monkeypatch.setattr(qwen_vl, "MAX_TOKENS", 3)
    scene = {"subjects": [], "environment_phrase": "", "lighting": "", **dict.fromkeys(schema.CHOICES, "other")}
    fuse = cards.load(f"qwen-vl-fusion:{tiny}")
    with pytest.raises(ValueError, match="no usable answer"):
        fuse(scene)


def test_a_network_that_was_taught_a_caption_says_it(tmp_path, monkeypatch):
    monkeypatch.setattr(schema, "request", lambda: "What is this?")  # quick to learn
    network, processor = build("qwen2.5", tmp_path)
    content = [{"type": "text", "text": schema.request()}, schema.frames_part(FRAMES[:4], 10.0)]
    inputs = qwen_vl.prepare_inputs(processor, [{"role": "user", "content": content}])
    teach(network, processor, inputs)
    network.eval().save_pretrained(tmp_path)

    said = cards.load(f"qwen-vl:{tmp_path}")(FRAMES[:4], 10.0, [])

    assert {name: said[name] for name in json.loads(TAUGHT)} == json.loads(TAUGHT)
    assert (said["shot_angle"], said["lighting"]) == ("other", "")  # left out


@pytest.mark.parametrize("name", ["skycaptioner-v1", "qwen2.5-vl-7b", "qwen3-vl-8b", "qwen3-vl-30b-a3b"])
def test_weights_that_are_not_here_are_a_sentence(name, monkeypatch, tmp_path):
    monkeypatch.setenv("A2DATA_WEIGHTS", str(tmp_path))
    with pytest.raises(FileNotFoundError, match=f"a2data models fetch {name}"):
        cards.load(name)
