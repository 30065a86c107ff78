import numpy as np
import pytest

from a2data.records import ClipVideo, Element, Kept
from model_zoo import cards
from model_zoo.detect import detr
from stages.detect import Detect

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

FRAMES = np.random.default_rng(0).integers(0, 255, (3, 120, 160, 3)).astype(np.uint8)
NAMES = {0: "person", 1: "cup", 2: "dog"}
NARROW = {
    **{"d_model": 32, "encoder_hidden_dim": 32, "encoder_ffn_dim": 32, "decoder_ffn_dim": 32, "decoder_layers": 2},
    **{"num_queries": 10, "feat_channels": [32] * 3, "decoder_in_channels": [32] * 3, "num_denoising": 0},
    **{"encoder_attention_heads": 2, "decoder_attention_heads": 2},
}


def named(config, **settings):
    return config(**settings, id2label=NAMES, label2id={label: number for number, label in NAMES.items()})


def rf_detr(kind="RfDetrForObjectDetection"):
    backbone = {
        **{"model_type": "rf_detr_dinov2", "hidden_size": 32, "num_hidden_layers": 4, "num_attention_heads": 2},
        **{"image_size": 64, "patch_size": 16, "num_windows": 2, "out_features": ["stage2", "stage4"]},
    }
    heads = {"decoder_self_attention_heads": 2, "decoder_cross_attention_heads": 2, "decoder_ffn_dim": 32}
    small = {"d_model": 32, "decoder_layers": 2, "num_queries": 12, "group_detr": 1}
    config = named(transformers.RfDetrConfig, backbone_config=backbone, **small, **heads)
    reader = transformers.RfDetrImageProcessor(size={"height": 128, "width": 128})
    return getattr(transformers, kind)(config), reader


def rf_detr_seg():
    return rf_detr("RfDetrForInstanceSegmentation")


def rt_detr_v2():
    shape = {"embedding_size": 8, "hidden_sizes": [8, 16, 16, 16], "depths": [1, 1, 1, 1], "layer_type": "basic"}
    backbone = transformers.RTDetrResNetConfig(**shape, out_features=["stage2", "stage3", "stage4"])
    config = named(transformers.RTDetrV2Config, backbone_config=backbone, encoder_in_channels=[16, 16, 16], **NARROW)
    reader = transformers.RTDetrImageProcessor(size={"height": 128, "width": 128})
    return transformers.RTDetrV2ForObjectDetection(config), reader


def d_fine():
    backbone = transformers.HGNetV2Config(
        stem_channels=[3, 8, 16],
        stage_in_channels=[16, 16, 512, 1024],  # D-FINE takes no other
        stage_mid_channels=[8] * 4,
        stage_out_channels=[16, 512, 1024, 2048],
        stage_num_blocks=[1] * 4,
        stage_numb_of_layers=[1] * 4,
        out_indices=[2, 3, 4],
    )
    config = named(transformers.DFineConfig, backbone_config=backbone, encoder_in_channels=[512, 1024, 2048], **NARROW)
    reader = transformers.RTDetrImageProcessor(size={"height": 128, "width": 128})
    return transformers.DFineForObjectDetection(config), reader


SLOW = pytest.param(d_fine, marks=pytest.mark.slow, id="d_fine")


@pytest.fixture(scope="module", params=[rf_detr, rf_detr_seg, rt_detr_v2, SLOW])
def folder(request, tmp_path_factory):
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp(request.param.__name__)
    for part in request.param():
        part.save_pretrained(path)
    return path


@pytest.fixture
def everything(monkeypatch):
    """Random networks are sure of nothing: let whatever they say count."""
    monkeypatch.setattr(detr, "CONFIDENCE", -1.0)


def near(one, other):
    assert (one.kind, one.label) == (other.kind, other.label)
    assert one.score == pytest.approx(other.score, abs=1e-4)
    assert np.abs(np.subtract(one.box, other.box)).max() < 0.05


def test_each_query_is_one_of_what_transformers_itself_reads_from_the_network(folder, everything):
    (found, *_) = cards.load(f"detr:{folder}")(FRAMES[:1])
    reader = transformers.AutoImageProcessor.from_pretrained(folder)
    config = transformers.AutoConfig.from_pretrained(folder)
    network = getattr(transformers, config.architectures[0]).from_pretrained(folder).eval()
    with torch.inference_mode():
        output = network(**reader(list(FRAMES[:1]), return_tensors="pt"))
    (said,) = transformers.RTDetrImageProcessor().post_process_object_detection(output, 0.0, [(120, 160)])
    top = int(said["scores"].argmax())
    assert found[0].label == NAMES[int(said["labels"][top])]
    assert found[0].score == pytest.approx(float(said["scores"][top]), abs=1e-4)
    assert np.abs(said["boxes"][top].numpy().clip(0, [160, 120, 160, 120]) - found[0].box).max() < 0.05
    assert [d.score for d in found] == sorted((d.score for d in found), reverse=True)
    assert all(d.mask.shape == (120, 160) and d.mask.dtype == bool for d in found)


def test_a_batch_is_its_frames_one_by_one(folder, everything, monkeypatch):
    model = cards.load(f"detr:{folder}")
    monkeypatch.setattr(detr, "BATCH", 2)
    together = model(FRAMES)
    assert len(together) == 3
    for frame, here in zip(FRAMES, together, strict=True):
        (alone,) = model(frame[None])
        assert len(alone) == len(here)
        for one, other in zip(alone, here, strict=True):
            near(one, other)
            assert (one.mask != other.mask).mean() < 0.01


def test_the_stage_makes_elements_of_what_the_network_finds(folder, everything):
    frames = np.repeat(FRAMES[:1], 6, 0)
    film = type("Clip", (ClipVideo,), {"frames": frames})(
        "v-00000000", "v", 0, 0, 6, "start", 15.0, 160, 120, [], [], (0, 0, 160, 120), 0.0, [], [], [], b"", b""
    )
    stage = Detect(confidence=0.0, min_area=0.0, min_side_px=1, max_area=1.0, embedder="mobilenetv2")
    looks = lambda pictures, masks: np.ones((len(pictures), 1), np.float32)  # noqa: E731
    rows = stage.run((cards.load(f"detr:{folder}"), looks), [Kept("v-00000000", "v")], [film])
    elements = [row for row in rows if isinstance(row, Element)]
    assert elements
    assert all(e.seen_frames == [0, 5] and e.label in NAMES.values() for e in elements)
    assert all(e.kind == ("human" if e.label == "person" else "object") for e in elements)


def queries(*boxes, shape=(216, 432), cells=54):
    """What a network would say that saw things of class 1 in these boxes, with masks of cells x cells, and one empty query."""
    height, width = shape
    shares = [
        [(x0 + x1) / 2 / width, (y0 + y1) / 2 / height, (x1 - x0) / width, (y1 - y0) / height]
        for x0, y0, x1, y1 in boxes
    ]
    masks = torch.full((len(boxes) + 1, cells, cells), -3.0)
    for mask, (x0, y0, x1, y1) in zip(masks, boxes, strict=False):
        mask[y0 * cells // height : y1 * cells // height, x0 * cells // width : x1 * cells // width] = 3.0
    logits = torch.tensor([[-5.0, 2.0 - i, -5.0] for i in range(len(boxes))] + [[-9.0] * 3])
    return logits, torch.tensor([*shares, [0.5, 0.5, 1.0, 1.0]]), masks


def test_rectangles_drawn_in_the_stretched_picture_come_back_where_they_were_drawn_to_the_pixel():
    boxes = [(80, 40, 240, 160), (0, 100, 64, 216)]  # the corners of cells of 8 x 4 pixels
    frame = np.zeros((216, 432, 3), np.uint8)
    found = detr._read(frame, *queries(*boxes), NAMES)
    for d, box in zip(found, boxes, strict=True):
        assert np.abs(np.subtract(d.box, box)).max() < 1e-3
        xs, ys = np.flatnonzero(d.mask.any(0)), np.flatnonzero(d.mask.any(1))
        assert (xs[0], ys[0], xs[-1] + 1, ys[-1] + 1) == box
        assert (d.kind, d.label) == ("object", "cup")
    assert [d.score for d in found] == pytest.approx([1 / (1 + np.exp(-2)), 1 / (1 + np.exp(-1))])


def test_a_network_without_masks_gets_them_from_the_colours_in_its_boxes():
    frame = np.full((216, 432, 3), 200, np.uint8)
    frame[60:160, 120:200] = (30, 60, 160)
    logits, boxes, _ = queries((118, 58, 202, 162))
    (found,) = detr._read(frame, logits, boxes, None, NAMES)
    truth = (frame == (30, 60, 160)).all(-1)
    assert (found.mask & truth).sum() / (found.mask | truth).sum() > 0.9


def test_a_network_whose_classes_have_no_names_is_refused(tmp_path):
    transformers.RfDetrConfig(num_labels=91).save_pretrained(tmp_path)
    with pytest.raises(ValueError, match=r"config.json does not name its 91 classes .*id2label"):
        cards.load(f"rf-detr-seg-small:{tmp_path}")


def test_another_network_and_missing_weights_are_sentences(tmp_path, monkeypatch):
    transformers.ViTConfig().save_pretrained(tmp_path / "vit")
    with pytest.raises(ValueError, match="is a 'vit' network: this card supports rf_detr"):
        cards.load(f"detr:{tmp_path / 'vit'}")
    monkeypatch.setenv("A2DATA_WEIGHTS", str(tmp_path))
    with pytest.raises(FileNotFoundError, match=r"no weights at .*rf-detr-seg-medium"):
        cards.load("rf-detr-seg-medium")
