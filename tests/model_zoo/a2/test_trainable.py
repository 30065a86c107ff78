import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("diffusers")


from diffusers import WanTransformer3DModel  # noqa: E402

from model_zoo.a2 import trainable as a2_trainable  # noqa: E402

A2 = {"in_channels": 36, "image_dim": 1280, "added_kv_proj_dim": 5120}  # the rest are diffusers' defaults


@pytest.fixture(scope="module")
def full_size():
    with torch.device("meta"):
        return WanTransformer3DModel(**A2)


def small():
    return WanTransformer3DModel(
        num_attention_heads=2, attention_head_dim=12, in_channels=36, text_dim=8, image_dim=8, added_kv_proj_dim=24, freq_dim=8,
        ffn_dim=16, num_layers=4, rope_max_seq_len=32,
    )  # fmt: skip


def test_the_papers_choice_is_6302252800_of_16394878784_parameters(full_size):
    a2_trainable.select(full_size, "cross-attention")
    *rows, everything = a2_trainable.table(full_size)
    assert everything[1:] == (6_302_252_800, 16_394_878_784)
    assert sum(row.all for row in rows) == everything.all == sum(p.numel() for p in full_size.parameters())
    assert {row.group for row in rows if row.trainable} == {
        "cross-attention, image", "cross-attention, text", "patch embedding", "image embedder",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("variant", "count"), [("image-branch", 2_097_766_400), ("full", 16_394_878_784), ("cross-2", 3_155_603_200)]
)
def test_variants_at_full_size(full_size, variant, count):
    a2_trainable.select(full_size, variant)
    assert a2_trainable.table(full_size)[-1].trainable == count


def test_every_second_layer_is_every_second_layer():
    names = a2_trainable.select(small(), "cross-2")
    assert {name.split(".")[1] for name in names if name.startswith("blocks")} == {"0", "2"}


def test_adapters_begin_as_nothing_and_alone_learn():
    network, before = small().eval(), None
    given = torch.randn(1, 36, 1, 4, 4), torch.tensor([5.0]), torch.randn(1, 512, 8), torch.randn(1, 4, 8)
    with torch.no_grad():
        before = network(*given, return_dict=False)[0]
        names = a2_trainable.select(network, "lora", rank=2)
        assert torch.equal(network(*given, return_dict=False)[0], before)
    assert all(".lora_" in name for name in names)
    assert a2_trainable.select(network, "lora", rank=2) == names  # chosen again, nothing is added


def test_a_regular_expression_of_ones_own_works_and_wrong_ones_are_sentences():
    network = small()
    assert a2_trainable.select(network, r"^blocks\.3\.ffn\.") == [
        n for n, _ in network.named_parameters() if n.startswith("blocks.3.ffn.")
    ]
    with pytest.raises(ValueError, match=r"'blocks.9' does not match any parameter: use cross-attention"):
        a2_trainable.select(network, "blocks.9")
    with pytest.raises(ValueError, match=r"neither one of .* nor a valid regular expression"):
        a2_trainable.select(network, "(")


def test_the_table_in_words_has_a_line_for_each_group():
    network = small()
    a2_trainable.select(network, "full")
    assert len(a2_trainable.to_text(a2_trainable.table(network)).splitlines()) == 9
