"""Training over frozen weights in bfloat16 and in 8 bits: memory, equality of what is exported, errors."""

from dataclasses import replace

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("diffusers")

import model_zoo  # noqa: E402, F401  # makes the torchvision of PyPI importable

# isort: split
from diffusers import WanTransformer3DModel  # noqa: E402

from model_zoo.a2 import acceleration, tiny  # noqa: E402
from model_zoo.a2 import trainable as a2_trainable  # noqa: E402
from pipelines.process_group import ProcessInfo  # noqa: E402
from pipelines.train import cost, examples, export  # noqa: E402
from pipelines.train.optimizer_step import TrainStep, prepare_model  # noqa: E402
from pipelines.train.settings import PRESETS, Settings, check, check_resume, network_config  # noqa: E402
from pipelines.train.trainer import load_network  # noqa: E402

SETTINGS = Settings(global_batch_size=1, trainable="lora", lora_rank=2, mixed_precision="bfloat16", learning_rate=1e-2)
PLACE = ProcessInfo(0, 1, torch.device("cpu"))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    root = tmp_path_factory.mktemp("start")
    torch.manual_seed(0)
    WanTransformer3DModel(**tiny.TRANSFORMERS["appended"]).save_pretrained(root / "transformer")
    return root


def sample():
    some = torch.Generator().manual_seed(0)
    shapes = {"video": (16, 2, 4, 6), "condition": (16, 1, 4, 6), "text": (5, tiny.DIM)}
    tensors = {name: torch.randn(*shape, generator=some) for name, shape in shapes.items()}
    return type(
        "Sample",
        (),
        {"key": "a", "epoch": 0, "index": 0, "tensors": tensors | {"text_empty": torch.zeros(1, tiny.DIM)}},
    )


@pytest.mark.parametrize("frozen", ["float32", "bfloat16", "int8", "fp8"])
def test_lora_is_trained_over_frozen_weights_whose_bytes_are_those_of_the_estimate(folder, frozen):
    if frozen in ("int8", "fp8"):
        pytest.importorskip("torchao")
    settings = replace(SETTINGS, frozen_dtype=frozen)
    network = prepare_model(load_network(folder, "appended", frozen), settings, PLACE)
    learner = TrainStep(network, torch.zeros(20, 2, 4, 6), settings, PLACE)
    before = {name: p.detach().clone() for name, p in a2_trainable.trainable(network)}
    learner.run([sample()], 0)
    moved = [name for name, p in a2_trainable.trainable(network) if not torch.equal(p, before[name])]
    # lora_A in the first step has no gradient, because lora_B is 0
    assert len(moved) >= 12
    assert all(".lora_B." in name for name in moved)
    assert all(p.dtype == torch.float32 for _, p in a2_trainable.trainable(network))

    real = sum(stored(p.data) for p in network.parameters())
    meta = cost.meta_network(tiny.TRANSFORMERS["appended"])
    a2_trainable.select(meta, "lora", settings.lora_rank)
    assert real == pytest.approx(cost.weight_bytes(meta, settings), rel=0.02)

    whole = load_network(folder, "appended").state_dict()
    state = export.merge_lora(network, whole | {n: p.detach() for n, p in a2_trainable.trainable(network)})
    name = "blocks.0.attn1.to_q"
    layer = network.get_submodule(name)
    change = layer.lora_B["default"].weight @ layer.lora_A["default"].weight
    assert torch.allclose(state[f"{name}.weight"], whole[f"{name}.weight"] + change, atol=1e-6)
    assert torch.equal(state["blocks.0.ffn.net.2.weight"], whole["blocks.0.ffn.net.2.weight"])  # not as rounded


def stored(tensor) -> int:
    """The bytes of a tensor, or of the tensors that a quantised one consists of."""
    parts = [getattr(tensor, name, None) for name in ("qdata", "scale")]
    if parts[0] is None:
        return tensor.numel() * tensor.element_size()
    return sum(part.numel() * part.element_size() for part in parts if part is not None)


def test_the_gradient_of_lora_is_that_over_the_rounded_weights(folder):
    """bfloat16 weights and an independent float32 network with the same rounded weights."""
    exact, rounded = load_network(folder, "appended"), load_network(folder, "appended")
    for p in exact.parameters():
        p.data = p.data.bfloat16().float()
    gradients = []
    for network, frozen in ((exact, "float32"), (rounded, "bfloat16")):
        torch.manual_seed(3)
        a2_trainable.select(network, "lora", 2)
        a2_trainable.cast(network, frozen)
        example = examples.draw_example(sample(), torch.zeros(20, 2, 4, 6), SETTINGS, PLACE.device, "appended")
        examples.loss(network, example, "bfloat16").backward()
        gradients.append(torch.cat([p.grad.flatten() for _, p in a2_trainable.trainable(network)]))
    assert (gradients[0] - gradients[1]).norm() < 0.05 * gradients[0].norm()


def test_14b_in_bfloat16_takes_20_gb_less_and_in_8_bits_16_more():
    network = cost.meta_network(network_config("14b"))
    a2_trainable.select(network, "lora", 16)
    settings = replace(PRESETS["14b"][1], trainable="lora")
    gb = {
        frozen: cost.weight_bytes(network, replace(settings, frozen_dtype=frozen)) / 1e9
        for frozen in ("float32", "bfloat16", "int8", "fp8")
    }
    assert gb["float32"] == pytest.approx(65.6 + 0.2, abs=0.1)
    assert gb["float32"] - gb["bfloat16"] == pytest.approx(32.8, abs=0.1)
    assert gb["bfloat16"] - gb["int8"] == pytest.approx(16.4, abs=0.1)
    assert gb["int8"] == pytest.approx(gb["fp8"], abs=0.01)
    network = cost.meta_network(network_config("14b"))
    a2_trainable.select(network, "cross-attention")  # 10.1 billion weights are frozen
    settings = replace(settings, trainable="cross-attention")
    less = cost.weight_bytes(network, settings) - cost.weight_bytes(network, replace(settings, frozen_dtype="bfloat16"))
    assert less / 1e9 == pytest.approx(20.2, abs=0.1)


def test_settings_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match="frozen_dtype int8 is for trainable lora on one process, not full on 1"):
        check(replace(SETTINGS, frozen_dtype="int8", trainable="full"), 1)
    with pytest.raises(ValueError, match="unknown frozen_dtype 'int4': choose float32, bfloat16, int8, fp8"):
        check(replace(SETTINGS, frozen_dtype="int4"), 1)


def test_a_training_that_began_before_there_was_the_setting_resumes():
    before = {name: value for name, value in vars(SETTINGS).items() if name != "frozen_dtype"}
    check_resume(before, SETTINGS)
    with pytest.raises(ValueError, match="frozen_dtype 'float32', now 'bfloat16'"):
        check_resume(before, replace(SETTINGS, frozen_dtype="bfloat16"))


def test_quantised_weights_are_saved_loaded_and_near_bfloat16(folder, tmp_path):
    pytest.importorskip("torchao")

    def run(network):
        torch.manual_seed(0)
        with torch.no_grad():
            given = (
                torch.randn(1, 16, 2, 4, 6).bfloat16(),
                torch.tensor([500.0]),
                torch.randn(1, 512, tiny.DIM).bfloat16(),
            )
            return network(*given, return_dict=False)[0].float()

    exact = run(load_network(folder, "appended").to(torch.bfloat16))
    for weights, most in (("int8", 0.03), ("fp8", 0.1)):
        config = acceleration.quantisation(weights)
        where = folder / "transformer"
        made = WanTransformer3DModel.from_pretrained(where, torch_dtype=torch.bfloat16, quantization_config=config)
        made.save_pretrained(tmp_path / weights)
        again = WanTransformer3DModel.from_pretrained(tmp_path / weights, torch_dtype=torch.bfloat16)
        assert torch.equal(run(again), run(made))
        assert 0 < (run(made) - exact).norm() / exact.norm() < most
