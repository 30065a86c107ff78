"""Long videos: the noise schedule against written tables and diffusers' own; windows drop nothing; one window as released."""

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("diffusers")

from hypothesis import given, settings  # noqa: E402
from hypothesis import strategies as st  # noqa: E402
from tiny_pipeline import pictures, pipeline, tiny_parts  # noqa: E402

from model_zoo.a2 import long as a2_long  # noqa: E402
from model_zoo.a2.long import Window, schedule, windows  # noqa: E402

# -- the schedule ------------------------------------------------------------------------------------------------------


def test_blocks_follow_one_another_by_the_lag():
    plan = schedule(frames=5, steps=3, causal_block_size=2, ar_step=1)
    assert plan.done.tolist() == [
        [0, 0, 0, 0, 0],
        [1, 1, 0, 0, 0],
        [2, 2, 1, 1, 0],
        [3, 3, 2, 2, 1],
        [3, 3, 3, 3, 2],
    ]
    assert plan.moves.astype(int).tolist() == [
        [1, 1, 0, 0, 0],
        [1, 1, 1, 1, 0],
        [1, 1, 1, 1, 1],
        [0, 0, 1, 1, 1],
        [0, 0, 0, 0, 1],
    ]


def test_what_is_ready_is_done_from_the_start_and_blocks_begin_behind_it():
    plan = schedule(frames=5, steps=2, causal_block_size=2, ar_step=1, num_known=2)
    assert plan.done.tolist() == [[2, 2, 0, 0, 0], [2, 2, 1, 1, 0], [2, 2, 2, 2, 1]]
    assert plan.moves.astype(int).tolist() == [[0, 0, 1, 1, 0], [0, 0, 1, 1, 1], [0, 0, 0, 0, 1]]


def test_without_a_lag_all_frames_go_together_and_with_a_long_one_after_another():
    assert schedule(3, 2).done.tolist() == [[0, 0, 0], [1, 1, 1]]
    assert schedule(2, 2, causal_block_size=1, ar_step=99).done.tolist() == [[0, 0], [1, 0], [2, 0], [2, 1]]


@given(st.integers(1, 30), st.integers(1, 12), st.integers(0, 9), st.integers(0, 15), st.integers(0, 8))
def test_every_frame_takes_every_step_once_and_noise_never_falls_along_time(frames, steps, block, lag, ready):
    ready = min(ready, frames - 1)
    plan = schedule(frames, steps, block, lag, ready)
    assert (plan.moves[:, ready:].sum(axis=0) == steps).all()
    assert not plan.moves[:, :ready].any()
    assert (np.diff(plan.done, axis=1) <= 0).all()
    assert (plan.done[-1] + plan.moves[-1] == steps).all()


@settings(max_examples=15, deadline=None)
@given(st.integers(1, 5), st.integers(1, 4), st.integers(2, 12), st.integers(0, 12), st.integers(0, 2))
def test_it_is_the_schedule_of_diffusers_where_the_blocks_divide_the_frames(blocks, block, steps, lag, ready):
    from diffusers import SkyReelsV2DiffusionForcingPipeline as Peer

    frames, ready, lag = blocks * block, min(ready, blocks - 1) * block, min(lag, steps)
    times = torch.arange(steps, 0, -1)
    matrix, _, moves, _ = Peer.generate_timestep_matrix(None, frames, times, frames, lag, ready, block)
    plan = schedule(frames, steps, block, lag, ready)
    asked = np.where((plan.done == 0) & ~plan.moves, 999, steps - plan.done)  # 999: its word for what has not begun
    assert asked.tolist() == matrix.tolist()
    assert plan.moves.tolist() == moves.tolist()


def test_frames_that_the_block_does_not_divide_are_kept():
    plan = schedule(frames=27, steps=30, causal_block_size=5, ar_step=5)
    assert plan.done.shape == (5 * 5 + 30, 27)


@pytest.mark.parametrize("wrong", [(0, 3), (3, 0), (3, 3, -1), (3, 3, 1, -1), (3, 3, 1, 0, 3)])
def test_a_schedule_of_nothing_is_refused(wrong):
    with pytest.raises(ValueError, match="there must be at least one frame to sample"):
        schedule(*wrong)


# -- windows -----------------------------------------------------------------------------------------------------------


def test_the_last_window_is_as_long_as_the_others_and_sees_more_history():
    assert windows(frames=40, window=21, head=3, history=4) == [
        Window(0, 0, 21), Window(4, 21, 35), Window(13, 35, 40),
    ]  # fmt: skip


@given(st.integers(1, 200), st.integers(0, 4), st.integers(1, 8), st.integers(1, 20))
def test_windows_make_every_frame_once_and_see_only_what_is_made(frames, head, history, new):
    found = windows(frames, head + history + new, head, history)
    assert [f for w in found for f in range(w.start, w.stop)] == list(range(frames))
    for w in found[1:]:
        assert w.history >= history
        assert w.start - w.history >= head
        assert head + w.history + w.stop - w.start == head + history + new


def test_a_window_without_room_is_refused():
    with pytest.raises(ValueError, match="no room for 3 of references, 4 of history and a new one"):
        windows(40, 7, 3, 4)


# -- sampling ----------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def tiny():
    """A pipeline of small random networks, whose prompts' embeddings are drawn by the prompt's length."""
    pipe = pipeline(tiny_parts())

    def encode_prompt(prompt, do_classifier_free_guidance, prompt_embeds=None, negative_prompt=None, **given_):
        if prompt_embeds is not None:
            return prompt_embeds, given_["negative_prompt_embeds"]
        return embedding(prompt), embedding(negative_prompt) if do_classifier_free_guidance else None

    pipe.encode_prompt = encode_prompt
    return pipe


def embedding(text: str):
    return torch.randn(1, 512, 64, generator=torch.Generator().manual_seed(len(text)))


def long(pipe, prompts=("a",), frames=17, n=2, window=17, latents=False, **more):
    given_ = {"history": 4, "num_inference_steps": 3, "generator": torch.Generator().manual_seed(0)} | more
    made = a2_long.latents if latents else a2_long.sample
    return made(pipe, pictures(n), list(prompts), num_frames=frames, window=window, **given_)


@pytest.mark.parametrize("g", [1.0, 5.0])
def test_one_window_without_a_lag_is_what_the_pipeline_samples(tiny, g):
    plain = tiny(
        *(pictures(2), "a"), negative_prompt="", num_frames=17, num_inference_steps=3, guidance_scale=g,
        generator=torch.Generator().manual_seed(0), output_type="np",
    ).frames[0]  # fmt: skip
    assert np.abs(long(tiny, guidance_scale=g) - plain).max() < 1e-4


@pytest.mark.parametrize(("frames", "n"), [(33, 1), (33, 2), (41, 3), (29, 2)])
def test_a_long_video_has_every_frame_but_those_of_the_references(tiny, frames, n):
    made = long(tiny, frames=frames, n=n, window=21)
    assert made.shape == (frames - 4 * n, 32, 48, 3)
    assert np.isfinite(made).all()


def test_what_a_window_made_is_not_changed_by_those_after_it(tiny):
    short, more = (long(tiny, frames=frames, latents=True) for frames in (17, 33))
    assert torch.equal(more[:, :, :5], short)
    assert more.shape[2] == 9


def test_a_window_sees_its_history_and_the_references(tiny):
    plain = long(tiny, frames=25, latents=True)
    seen = []
    hook = tiny.transformer.register_forward_pre_hook(lambda _, __, given_: seen.append(given_), with_kwargs=True)
    long(tiny, frames=25, latents=True, addnoise_condition=0, guidance_scale=1.0)
    hook.remove()
    x, times = seen[-1]["hidden_states"], seen[-1]["timestep"]
    first = long(tiny, frames=17, latents=True, guidance_scale=1.0)
    assert plain.shape[2] == 7
    assert torch.equal(x[:, :16, :2], first[:, :, :2])  # the references' frames
    assert torch.equal(x[:, :16, 2:3], first[:, :, 4:])  # the history
    assert (x[:, 16:20, :2] == 1).all()
    assert not x[:, 16:20, 2:].any()
    by_frame = times.view(5, -1)
    assert (by_frame[:3] == 0).all()
    assert (by_frame[3:] > 0).all()


def note_times(into: list):
    return lambda _, __, given_: into.append(given_["timestep"].view(5, -1)[:, 0].tolist())


def test_noise_on_the_history_is_told_to_the_network_by_its_time(tiny):
    times = []
    hook = tiny.transformer.register_forward_pre_hook(note_times(times), with_kwargs=True)
    long(tiny, frames=25, addnoise_condition=20, guidance_scale=1.0)
    hook.remove()
    assert [each[:3] for each in times[3:]] == [[20.0] * 3] * 3


def test_with_a_lag_later_frames_are_noisier(tiny):
    times = []
    hook = tiny.transformer.register_forward_pre_hook(note_times(times), with_kwargs=True)
    made = long(tiny, causal_block_size=2, ar_step=1, guidance_scale=1.0)
    hook.remove()
    assert len(times) == 3 + 2
    assert all(each == sorted(each) for each in times)
    assert times[1][0] < times[1][2] == times[1][4]
    assert np.isfinite(made).all()


def test_a_story_changes_only_the_windows_from_its_prompt_on(tiny):
    plain, story = (long(tiny, prompts, frames=33, latents=True) for prompts in (("a",), ("a", "bb")))
    assert torch.equal(plain[:, :, :5], story[:, :, :5])
    assert (plain[:, :, 5:] - story[:, :, 5:]).abs().max() > 1e-3


@pytest.mark.parametrize(
    ("more", "sentence"),
    [
        ({"frames": 18}, r"4 n \+ 1"),
        ({"window": 16}, r"4 n \+ 1"),
        (
            {"frames": 33, "window": 13, "history": 8},
            "4 latent frames has no room for 2 of references, 2 of history",
        ),
        ({"addnoise_condition": 2000}, "from 0 to 1000"),
        ({"prompts": ()}, "no prompt"),
    ],
)
def test_a_long_video_that_cannot_be_is_a_sentence(tiny, more, sentence):
    with pytest.raises(ValueError, match=sentence):
        long(tiny, **more)
