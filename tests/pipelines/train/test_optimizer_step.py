"""The optimizer step alone: synchronisation, clipping, EMA."""

from dataclasses import replace
from functools import partial
from types import SimpleNamespace

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("diffusers")


from diffusers import WanTransformer3DModel  # noqa: E402

from model_zoo.a2 import tiny  # noqa: E402
from pipelines.process_group import ProcessInfo  # noqa: E402
from pipelines.train import examples  # noqa: E402
from pipelines.train.optimizer_step import TrainStep, prepare_model  # noqa: E402
from pipelines.train.settings import Settings  # noqa: E402

SETTINGS = Settings(
    global_batch_size=2,
    trainable="cross-attention",
    learning_rate=0.1,
    mixed_precision="float32",
    ema_decay=0.5,
    log_every=2,
    max_grad_norm=0.01,
    reference_dropout_prob=0.0,
)
CPU = torch.device("cpu")


def network():
    torch.manual_seed(0)
    return WanTransformer3DModel(**tiny.TRANSFORMER | {"num_layers": 1})


def sample(number: int):
    rng = torch.Generator().manual_seed(number)
    shapes = {"video": (16, 3, 4, 6), "condition": (20, 3, 4, 6), "text": (5, tiny.DIM), "image": (34, tiny.DIM)}
    tensors = {name: torch.randn(*shape, generator=rng) for name, shape in shapes.items()}
    tensors["condition"][:4] = torch.tensor([1.0, 0.0, 0.0])[:, None, None]
    return SimpleNamespace(
        key=f"s{number}", epoch=0, index=number, tensors=tensors | {"text_empty": torch.zeros(1, tiny.DIM)}
    )


@pytest.mark.parametrize("slots", ["reference", "video", "ignore"])
def test_a_pass_forward_and_back_asks_its_device_for_no_value(slots):
    """Tensors of the meta device have none: whoever asks for one gets an error here, and would wait for the GPU there."""
    settings, meta = replace(SETTINGS, reference_target=slots), torch.device("meta")
    learning = network().to(meta)
    drawn = [examples.draw_example(sample(n), torch.zeros(20, 3, 4, 6), settings, meta) for n in range(2)]
    losses = examples.losses(learning, drawn, "float32")
    losses.sum().backward()
    assert losses.shape == (2,)
    assert all(p.grad.device.type == "meta" for p in learning.parameters() if p.grad is not None)


def test_a_step_clips_once_moves_what_learns_and_lets_the_average_follow():
    learner = TrainStep(
        prepare_model(network(), SETTINGS, ProcessInfo(0, 1, CPU)),
        torch.zeros(20, 3, 4, 6),
        SETTINGS,
        ProcessInfo(0, 1, CPU),
    )
    before = {name: average.clone() for name, average in learner.ema.items()}
    seen = []
    learner.optimizer.register_step_pre_hook(lambda *_: seen.append([p.grad.clone() for p in learner.parameters]))
    first, second = (learner.run([sample(0), sample(1)], step) for step in (0, 1))
    assert first.loss == pytest.approx(sum(loss for loss, _, _ in first.samples) / 2)
    assert [slots for _, _, slots in first.samples] == [1, 1]
    assert float(first.norms["all"]) > SETTINGS.max_grad_norm
    for gradients in seen:
        assert float(sum(g.square().sum() for g in gradients).sqrt()) == pytest.approx(SETTINGS.max_grad_norm, rel=1e-3)
    assert set(first.norms) == {"all"}  # groups are asked for where a line of the log is due
    of_groups = [float(norm) ** 2 for name, norm in second.norms.items() if name != "all"]
    assert sum(of_groups) ** 0.5 == pytest.approx(float(second.norms["all"]), rel=1e-5)
    now = dict(learner.network.named_parameters())
    for name, average in learner.ema.items():
        assert (average - now[name]).abs().max() < (before[name] - now[name]).abs().max()


@pytest.mark.parametrize("compiled", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_checkpointed_and_compiled_blocks_have_the_same_loss_and_gradients(monkeypatch, compiled):
    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend="aot_eager"))
    seen = []
    for settings in (SETTINGS, replace(SETTINGS, activation_checkpointing=True, compile=compiled)):
        learner = learner_of(settings)
        learner.optimizer.register_step_pre_hook(
            lambda *_, learner=learner: seen.append(torch.cat([p.grad.flatten() for p in learner.parameters]))
        )
        found = learner.run([sample(0), sample(1)], 0)
        seen.append(torch.tensor(found.loss))
    one, loss, other, again = seen
    assert torch.allclose(one, other, rtol=1e-4, atol=1e-6)
    assert torch.allclose(loss, again, rtol=1e-6)


def learner_of(settings=SETTINGS):
    place = ProcessInfo(0, 1, CPU)
    return TrainStep(prepare_model(network(), settings, place), torch.zeros(20, 3, 4, 6), settings, place)


def refused(learner, samples) -> str:
    """What a step says that learns nothing."""
    before = [p.detach().clone() for p in learner.parameters]
    with pytest.raises(FloatingPointError) as error:
        learner.run(samples, 0)
    now = [p.detach() for p in learner.parameters]
    assert all(torch.equal(a.nan_to_num(), b.nan_to_num()) for a, b in zip(before, now, strict=True))
    return str(error.value)


def test_a_network_that_holds_nan_is_named_and_no_sample_is():
    learner = learner_of()
    name, parameter = next(iter(learner.network.named_parameters()))
    with torch.no_grad():
        parameter.view(-1)[0] = float("nan")
    said = refused(learner, [sample(0), sample(1)])
    assert f"the network has NaN or infinity in {name} before this step" in said
    assert "s0" not in said
    assert "s1" not in said


def test_a_condition_without_references_that_holds_nan_is_named_and_no_sample_is():
    learner = learner_of(replace(SETTINGS, reference_dropout_prob=1.0))
    learner.null_condition[0, 0, 0, 0] = float("inf")
    said = refused(learner, [sample(0), sample(1)])
    assert "the condition without references, but in none of the samples" in said
    assert "s0" not in said


@pytest.mark.parametrize("value", [1e22, 3e38])
def test_a_tensor_with_absurd_finite_values_is_reported_before_the_weights_are_updated(value):
    """The loss may be finite where the gradient is not: the step would break the network, and the next samples be blamed."""
    learner, samples = learner_of(), [sample(0), sample(1)]
    samples[1].tensors["video"][0, 1, 1, 1] = value
    said = refused(learner, samples)
    assert "s1 (video)" in said
    assert "s0" not in said


def test_a_nan_gradient_does_not_update_the_weights(monkeypatch):
    learner = learner_of()
    monkeypatch.setattr(learner, "clip_grad_norm", lambda per_group: {"all": torch.tensor(float("inf"))})
    said = refused(learner, [sample(0), sample(1)])
    assert said.startswith("the gradient of step 1 is inf: after s0, s1")
