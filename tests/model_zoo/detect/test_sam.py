from types import SimpleNamespace

import numpy as np
import pytest

from model_zoo import cards
from model_zoo.detect import sam

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

FRAME = np.random.default_rng(0).integers(0, 255, (120, 160, 3)).astype(np.uint8)
BOXES = np.array([[10, 10, 60, 70], [40, 20, 90, 100], [0, 0, 160, 120]], np.float32)


def of_width(config, **others):
    return type(config)(hidden_size=32, **others)


def sam2():
    """SAM 2 with the same parts as the published ones, for pictures of 128 px."""
    t = transformers
    whole = t.Sam2Config()
    backbone = t.Sam2HieraDetConfig(
        hidden_size=8,
        image_size=[128, 128],
        blocks_per_stage=[1, 2, 2, 1],
        embed_dim_per_stage=[8, 16, 32, 64],
        num_attention_heads_per_stage=[1, 1, 1, 1],
        window_size_per_stage=[4, 4, 4, 4],
        global_attention_blocks=[4],
        window_positional_embedding_background_size=[4, 4],
    )
    vision = t.Sam2VisionConfig(
        backbone_config=backbone,
        backbone_channel_list=[64, 32, 16, 8],
        backbone_feature_sizes=[[32, 32], [16, 16], [8, 8]],
        fpn_hidden_size=32,
    )
    decoder = of_width(whole.mask_decoder_config, mlp_dim=32, num_attention_heads=2, iou_head_hidden_dim=32)
    prompts = of_width(whole.prompt_encoder_config, image_size=128)
    config = t.Sam2Config(vision_config=vision, prompt_encoder_config=prompts, mask_decoder_config=decoder)
    reader = t.Sam2ImageProcessor(size={"height": 128, "width": 128}, mask_size={"height": 32, "width": 32})
    return t.Sam2Model(config), t.Sam2Processor(reader)


def sam3():
    """SAM 3's network for boxes, for pictures of 112 px."""
    t = transformers
    whole = t.Sam3TrackerConfig()
    backbone = {
        "model_type": "sam3_vit_model",
        "hidden_size": 32,
        "intermediate_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "image_size": 112,
        "window_size": 4,
        "global_attn_indexes": [1],
        "pretrain_image_size": 112,
    }
    sizes = [[32, 32], [16, 16], [8, 8]]
    vision = type(whole.vision_config)(backbone_config=backbone, fpn_hidden_size=32, backbone_feature_sizes=sizes)
    decoder = of_width(whole.mask_decoder_config, mlp_dim=32, num_attention_heads=2, iou_head_hidden_dim=32)
    prompts = of_width(whole.prompt_encoder_config, image_size=112)
    config = t.Sam3TrackerConfig(vision_config=vision, prompt_encoder_config=prompts, mask_decoder_config=decoder)
    reader = t.Sam3ImageProcessor(size={"height": 112, "width": 112}, mask_size={"height": 32, "width": 32})
    return t.Sam3TrackerModel(config), t.Sam3TrackerProcessor(reader)


@pytest.fixture(scope="module", params=[sam2, sam3])
def folder(request, tmp_path_factory):
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp(request.param.__name__)
    for part in request.param():
        part.save_pretrained(path)
    return path


def test_there_is_a_mask_of_the_frames_size_for_each_box(folder):
    masks = cards.load(f"sam:{folder}")(FRAME, BOXES)
    assert (masks.shape, masks.dtype) == ((3, 120, 160), bool)
    assert 0 < masks.mean() < 1


def test_without_boxes_there_are_no_masks(folder):
    assert cards.load(f"sam:{folder}")(FRAME, np.zeros((0, 4))).shape == (0, 120, 160)


def test_boxes_together_are_the_boxes_one_by_one_however_many_there_are(folder, monkeypatch):
    model = cards.load(f"sam:{folder}")
    alone = np.concatenate([model(FRAME, box[None]) for box in BOXES])
    monkeypatch.setattr(sam, "BATCH", 2)
    assert (model(FRAME, BOXES) != alone).mean() < 1e-3


class Tracer:
    """In the network's place: draws each box that it is given, in the pixels of its masks."""

    def __init__(self, side):
        self.side = side

    def get_image_embeddings(self, pixels):
        assert pixels.shape == (1, 3, self.side, self.side)
        return [pixels]

    def __call__(self, image_embeddings, input_boxes, multimask_output):
        at = (torch.arange(32) + 0.5) * self.side / 32
        x0, y0, x1, y1 = input_boxes[0].T[:, :, None]
        inside = ((at >= y0) & (at < y1))[:, :, None] & ((at >= x0) & (at < x1))[:, None, :]
        return SimpleNamespace(pred_masks=torch.where(inside, 1.0, -1.0)[None, :, None])


def edges(mask):
    xs, ys = np.flatnonzero(mask.any(0)), np.flatnonzero(mask.any(1))
    return xs[0], ys[0], xs[-1] + 1, ys[-1] + 1


def test_a_box_goes_into_the_network_and_comes_out_as_the_same_rectangle_to_the_pixel(folder, monkeypatch):
    network, reader = sam._classes(transformers.AutoConfig.from_pretrained(folder).model_type, "")
    side = reader.from_pretrained(folder).image_processor.size["height"]
    loaded = SimpleNamespace(to=lambda _: SimpleNamespace(eval=lambda: Tracer(side)))
    fake = SimpleNamespace(from_pretrained=lambda *_, **__: loaded)
    monkeypatch.setattr(sam, "_classes", lambda *_: (fake, reader))
    # a pixel of the network's masks is 8 x 4 here
    boxes = np.array([[16, 32, 96, 124], [8, 0, 256, 64], [0, 4, 16, 12]])
    masks = cards.load(f"sam:{folder}")(np.zeros((128, 256, 3), np.uint8), boxes)
    for mask, (x0, y0, x1, y1) in zip(masks, boxes, strict=True):
        truth = np.zeros((128, 256), bool)
        truth[y0:y1, x0:x1] = True
        assert edges(mask) == edges(truth)
        assert (mask != truth).sum() <= 16  # bilinear enlargement rounds the corners
    assert network.__name__ in ("Sam2Model", "Sam3TrackerModel")


def test_a_box_is_scaled_as_by_the_authors():
    """sam2/utils/transforms.py: x by the picture's width and y by its height, times the side of the input."""
    reader = transformers.Sam2Processor(transformers.Sam2ImageProcessor())
    boxes = [[10.0, 20.0, 300.0, 400.0], [0.0, 0.0, 1280.0, 720.0]]
    asked = reader(input_boxes=[boxes], original_sizes=torch.tensor([[720, 1280]]), return_tensors="pt")["input_boxes"]
    theirs = np.array(boxes) / [1280, 720, 1280, 720] * 1024
    assert np.abs(asked[0].numpy() - theirs).max() < 1e-3


def test_another_network_and_missing_weights_are_sentences(tmp_path, monkeypatch):
    transformers.ViTConfig().save_pretrained(tmp_path / "vit")
    with pytest.raises(ValueError, match="is a 'vit' network: this card supports SAM 2 and SAM 3"):
        cards.load(f"sam:{tmp_path / 'vit'}")
    monkeypatch.setenv("A2DATA_WEIGHTS", str(tmp_path))
    with pytest.raises(FileNotFoundError, match=r"no weights at .*sam2\.1-hiera-large"):
        cards.load("sam2.1-hiera-large")
