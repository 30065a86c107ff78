"""Open-vocabulary detection: Grounding DINO and MM Grounding DINO (Apache-2.0), YOLOE (AGPL-3.0).

Grounding DINO: Liu et al. 2023 (arXiv 2303.05499); MM Grounding DINO: Zhao et al. 2024 (arXiv 2401.02361), LLMDet: Fu et al. 2025
(arXiv 2501.18954), all through transformers; YOLOE: Wang et al. 2025 (arXiv 2503.07465), through ultralytics.

`model(frames, phrases) -> list[list[Detection]]`, one list per frame; a detection's label is one of the phrases.
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from model_zoo import cards
from model_zoo.detect.boxes import CONFIDENCE, detections
from model_zoo.detect.yolo import keep_offline, read_result
from model_zoo.roles import Card, Detection
from model_zoo.weights import find

BATCH = 4  # frames per batch of Grounding DINO: 900 queries and four levels at 800 px need much memory
YOLOE_BATCH = 16
NMS_IOU = 0.7  # IoU above which two boxes for one phrase are one object

Finder = Callable[[np.ndarray, Sequence[str]], list[list[Detection]]]


def grounding_dino(card: Card, device: str) -> Finder:
    """Grounding DINO (Liu et al. 2023), MM-Grounding-DINO or LLMDet through transformers.

    The weights are a folder saved by transformers, with its processor. Masks are cut out of the boxes by colour. Raises
    FileNotFoundError for a missing folder, ValueError for a network that is not a Grounding DINO; the model raises ValueError for
    more phrases than its text encoder accepts.
    """
    weights = find(card)
    import torch
    from transformers import AutoConfig, AutoModelForZeroShotObjectDetection, AutoProcessor

    config = AutoConfig.from_pretrained(weights, local_files_only=True)
    if config.model_type not in ("grounding-dino", "mm-grounding-dino"):
        raise ValueError(f"{weights} is a {config.model_type!r} network: this card supports Grounding DINO")
    model_class: Any = AutoModelForZeroShotObjectDetection
    model = model_class.from_pretrained(weights, local_files_only=True, dtype=torch.float32).to(device).eval()
    processor: Any = AutoProcessor.from_pretrained(weights, local_files_only=True)

    @torch.inference_mode()
    def ground(frames: np.ndarray, phrases: Sequence[str]) -> list[list[Detection]]:
        if not phrases:
            return [[] for _ in frames]
        tokens, spans = encode_phrases(processor.tokenizer, phrases, config.max_text_len)
        found: list[list[Detection]] = []
        for start in range(0, len(frames), BATCH):
            batch = frames[start : start + BATCH]
            pictures = processor.image_processor(list(batch), return_tensors="pt").to(device)
            text = {name: torch.tensor([ids] * len(batch), device=device) for name, ids in tokens.items()}
            output = model(**pictures, **text)
            for frame, logits, boxes in zip(batch, output.logits, output.pred_boxes, strict=True):
                found.append(_read(frame, logits, boxes, phrases, spans))
        return found

    return ground


def encode_phrases(
    tokenizer: Any, phrases: Sequence[str], max_tokens: int
) -> tuple[dict[str, list[int]], list[list[int]]]:
    """Return the phrases as tokens of one text, "a cat. a dog.", and the token positions of each phrase.

    Each phrase is encoded on its own, so that its tokens are known. Raises ValueError for a phrase without a word, or for more
    than `max_tokens` tokens.
    """
    ids, spans = [tokenizer.cls_token_id], []
    full_stop = tokenizer.convert_tokens_to_ids(".")
    for phrase in phrases:
        words = tokenizer(phrase.lower().replace(".", " "), add_special_tokens=False)["input_ids"]
        if not words:
            raise ValueError(f"{phrase!r} contains no word to search for")
        spans.append(list(range(len(ids), len(ids) + len(words))))
        ids += [*words, full_stop]
    ids.append(tokenizer.sep_token_id)
    if len(ids) > max_tokens:
        raise ValueError(
            f"{len(phrases)} phrases are {len(ids)} tokens, and the network takes {max_tokens}: pass fewer phrases"
        )
    type_ids, attention_mask = [0] * len(ids), [1] * len(ids)
    return {"input_ids": ids, "token_type_ids": type_ids, "attention_mask": attention_mask}, spans


def _read(
    frame: np.ndarray, logits: Any, boxes: Any, phrases: Sequence[str], spans: list[list[int]]
) -> list[Detection]:
    """Return one frame's queries as detections, each with the phrase of highest mean token score, those above CONFIDENCE.

    logits: (queries, tokens); boxes: (queries, 4), centre and size as fractions of the picture.
    """
    import torch
    import torchvision

    height, width = frame.shape[:2]
    token_scores = logits.float().sigmoid()
    scores, phrase_indices = torch.stack([token_scores[:, span].mean(-1) for span in spans], -1).max(-1)
    kept = scores > CONFIDENCE
    x, y, w, h = boxes[kept].float().unbind(-1)
    size = torch.tensor([width, height, width, height], device=boxes.device)
    corners = torch.stack([x - w / 2, y - h / 2, x + w / 2, y + h / 2], -1) * size
    scores, phrase_indices = scores[kept], phrase_indices[kept]
    kept_by_nms = torchvision.ops.batched_nms(corners.cpu(), scores.cpu(), phrase_indices.cpu(), NMS_IOU).numpy()
    labels = [phrases[int(i)] for i in phrase_indices.cpu().numpy()[kept_by_nms]]
    return detections(frame, corners.cpu().numpy()[kept_by_nms], scores.cpu().numpy()[kept_by_nms], labels, None)


def yoloe(card: Card, device: str) -> Finder:
    """YOLOE (Wang et al. 2025) through ultralytics. The weights are a .pt file; its text encoder is another card (`text_card`).

    Masks are the network's own. Raises FileNotFoundError if one of the two files is missing, ValueError for a file that is not a
    YOLOE, or one without prompts.
    """
    weights = find(card)
    keep_offline()
    import torch
    from ultralytics import YOLOE
    from ultralytics.nn.modules.head import YOLOEDetect

    try:
        model: Any = YOLOE(str(weights))
    except Exception as error:  # unpickling a foreign file may raise anything
        raise ValueError(f"{weights} cannot be read as YOLOE weights ({error}): check the path") from error
    head = model.model.model[-1]
    if not isinstance(head, YOLOEDetect) or hasattr(head, "lrpc"):
        raise ValueError(f"{weights} accepts no phrases: use YOLOE weights without -pf in their name")
    model.model.to(device).eval()
    encode = cards.load(text_card(model.model), device)
    current_phrases: list[str] = []

    def ground(frames: np.ndarray, phrases: Sequence[str]) -> list[list[Detection]]:
        if not phrases:
            return [[] for _ in frames]
        if list(phrases) != current_phrases:
            with torch.no_grad():  # otherwise ultralytics cannot copy the network
                features = head.get_tpe(encode(phrases).to(next(head.parameters()).dtype)[None])
            model.set_classes(list(phrases), features)
            current_phrases[:] = phrases
        found: list[list[Detection]] = []
        for start in range(0, len(frames), YOLOE_BATCH):
            batch = frames[start : start + YOLOE_BATCH]
            pictures = [np.ascontiguousarray(f[..., ::-1]) for f in batch]  # ultralytics takes BGR
            results = model.predict(
                pictures, conf=CONFIDENCE, retina_masks=True, device=device, verbose=False, save=False
            )
            found += [read_result(result, frame) for result, frame in zip(results, batch, strict=True)]
        return found

    return ground


def text_card(model: Any) -> str:
    """Return the card of the text encoder that a YOLOE network was trained with, as stated in its weights."""
    family = str(getattr(model, "text_model", "mobileclip:blt")).partition(":")[0]
    return {"mobileclip": "mobileclip-blt", "mobileclip2": "mobileclip2-b"}[family]


def mobileclip(card: Card, device: str) -> Callable[[Sequence[str]], Any]:
    """MobileCLIP's text encoder as a TorchScript file: `model(phrases) -> (n, d) float32 tensor`, rows of unit length.

    Vasu et al. 2024 (arXiv 2311.17049). CLIP's own tokens, 77 per phrase, from open_clip. Raises FileNotFoundError for a missing
    file, ValueError for one that is not TorchScript.
    """
    weights: Path = find(card)
    import torch
    from open_clip.tokenizer import SimpleTokenizer

    try:
        encoder = torch.jit.load(str(weights), map_location=device).eval()
    except RuntimeError as error:
        raise ValueError(f"{weights} cannot be read as TorchScript ({error}): check the path") from error
    tokens = SimpleTokenizer(context_length=77)

    @torch.no_grad()
    def encode(phrases: Sequence[str]) -> Any:
        features = encoder(tokens(list(phrases)).to(device)).float()
        return torch.nn.functional.normalize(features, dim=-1)

    return encode
