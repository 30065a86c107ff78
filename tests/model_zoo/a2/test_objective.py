import pytest

torch = pytest.importorskip("torch")

from model_zoo.a2 import objective  # noqa: E402


def test_the_path_leads_from_clean_to_noise_in_the_direction_of_the_training_target():
    torch.manual_seed(0)
    clean, noise = torch.randn(2, 1, 16, 3, 4, 4)
    step = objective.add_noise(clean, noise, 0.6) - objective.add_noise(clean, noise, 0.5)
    assert torch.equal(objective.add_noise(clean, noise, 0.0), clean)
    assert torch.equal(objective.add_noise(clean, noise, 1.0), noise)
    assert torch.allclose(step, 0.1 * objective.velocity(clean, noise), atol=1e-6)


@pytest.mark.parametrize("shift", [1.0, 3.0, 5.0, 8.0])
def test_a_shift_is_diffusers_own(shift):
    pytest.importorskip("diffusers")

    from diffusers import FlowMatchEulerDiscreteScheduler

    theirs = FlowMatchEulerDiscreteScheduler(shift=shift).sigmas[[99, 499, 899]]
    ours = [objective.apply_flow_shift(1 - n / 1000, shift) for n in (99, 499, 899)]
    assert theirs.tolist() == pytest.approx(ours, abs=1e-5)


@pytest.mark.parametrize(
    ("references", "repeat", "slots"), [(0, True, 0), (1, True, 1), (3, True, 3), (3, False, 2), (6, False, 3)]
)
def test_each_reference_has_a_frame_of_latents_or_four_share_one(references, repeat, slots):
    assert objective.num_reference_latents(references, repeat) == slots


def test_the_training_target_at_references_is_a_setting():
    video, condition = torch.zeros(1, 16, 5, 2, 2), torch.ones(1, 20, 5, 2, 2)
    for target, first, counted in (("reference", 1.0, 5), ("video", 0.0, 5), ("ignore", 0.0, 3)):
        clean, counts = objective.training_target(video, condition, 2, target)
        assert clean[:, :, :2].unique().tolist() == [first]
        assert not clean[:, :, 2:].any()
        assert int(counts.sum()) == counted
    with pytest.raises(ValueError, match="unknown reference_target 'all'"):
        objective.training_target(video, condition, 2, "all")


def test_frames_that_do_not_count_change_no_loss():
    said, target = torch.zeros(1, 16, 3, 2, 2), torch.ones(1, 16, 3, 2, 2)
    counts = torch.tensor([False, True, True])
    said[:, :, 0] = 100.0
    assert float(objective.loss(said, target, counts)) == 1.0


def test_the_network_gets_noise_mask_latents_in_this_order_and_512_tokens_of_text():
    seen = {}

    def network(hidden_states, timestep, encoder_hidden_states, encoder_hidden_states_image, return_dict):
        seen.update(hidden=hidden_states, timestep=timestep, words=encoder_hidden_states)
        return (hidden_states[:, :16],)

    network.config = {"in_channels": 36, "image_dim": 8}

    noised, condition = torch.full((1, 16, 2, 2, 2), 7.0), torch.full((1, 20, 2, 2, 2), 3.0)
    objective.predict(network, noised, 0.25, condition, torch.ones(1, 5, 8), torch.ones(1, 4, 8))
    assert seen["hidden"][0, :, 0, 0, 0].tolist() == [7.0] * 16 + [3.0] * 20
    assert seen["timestep"].tolist() == [250.0]
    assert seen["words"].shape == (1, 512, 8)
    assert seen["words"][0, :, 0].sum() == 5
