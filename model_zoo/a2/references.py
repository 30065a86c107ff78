"""Reference conditioning of SkyReels-A2 (arXiv 2504.02436): ordering, resizing, temporal layout and mask.

Training, sampling and benchmarks share this module, so their conditions are bit-identical. A reference is used twice: at the size
of the video at the start of the condition (the spatial branch), and as a white square in CLIP (the semantic branch).
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Float, UInt8
from PIL import Image

ROLES = ("human", "object", "background")  # in the order of A2's training
CLIP_SIDE_PX = 512  # side of the white square; CLIP's processor shrinks it further
STRIDE = 4  # video frames per latent frame, after the first


class Reference(NamedTuple):
    """An image of a person, an object or a background that should appear in the video."""

    role: str  # one of ROLES
    picture: UInt8[np.ndarray, "h w 3"]  # RGB; a subject is on white, at its position in the original frame


class Prepared(NamedTuple):
    """References prepared for the two branches, in the order of ROLES."""

    frames: UInt8[np.ndarray, "n height width 3"]
    squares: UInt8[np.ndarray, "n side side 3"]


def prepare(references: Sequence[Reference], height: int, width: int, conditioning: str = "a2") -> Prepared:
    """Return references at the video's size and as squares, in the order of ROLES, then in input order.

    For A2, subjects are padded with white; backgrounds are cropped, so that the scene has no border. The other conditionings
    pad all of them with white and have no squares. Raises ValueError without references, for an unknown role, and for an image
    that is not (h, w, 3) uint8.
    """
    if not references:
        raise ValueError("no reference: A2 needs at least one")
    for number, (role, picture) in enumerate(references):
        if role not in ROLES:
            raise ValueError(f"reference {number} has the unknown role {role!r}; the roles are {', '.join(ROLES)}")
        if picture.ndim != 3 or picture.shape[2] != 3 or picture.dtype != np.uint8:
            raise ValueError(f"reference {number} is {picture.dtype} {picture.shape}; it must be (h, w, 3) uint8 RGB")
    ordered = sorted(references, key=lambda r: ROLES.index(r.role))
    if conditioning != "a2":
        fit_all = {"appended": letterboxed, "vace": letterboxed_bilinear}[conditioning]
        frames = np.stack([fit_all(r.picture, height, width) for r in ordered])
        return Prepared(frames, np.empty((len(ordered), 0, 0, 3), np.uint8))
    fit = {"human": padded, "object": padded, "background": cropped}
    return Prepared(
        np.stack([fit[r.role](r.picture, height, width) for r in ordered]),
        np.stack([padded(r.picture, CLIP_SIDE_PX, CLIP_SIDE_PX) for r in ordered]),
    )


def padded(picture: UInt8[np.ndarray, "h w 3"], height: int, width: int) -> UInt8[np.ndarray, "height width 3"]:
    """Return the whole image centred in height x width on white. Bicubic, as in the released model's demo."""
    h, w = picture.shape[:2]
    rows = max(0, int((height / width * w - h) / 2))
    columns = max(0, int((width / height * h - w) / 2))
    white = np.pad(picture, ((rows, rows), (columns, columns), (0, 0)), constant_values=255)
    return np.asarray(Image.fromarray(white).resize((width, height)))


def on_white(picture: UInt8[np.ndarray, "h w 3"], height: int, width: int) -> UInt8[np.ndarray, "height width 3"]:
    """Return a picture that fits into height x width centred on white."""
    white = np.full((height, width, 3), 255, np.uint8)
    top, left = (height - picture.shape[0]) // 2, (width - picture.shape[1]) // 2
    white[top : top + picture.shape[0], left : left + picture.shape[1]] = picture
    return white


def letterboxed(picture: UInt8[np.ndarray, "h w 3"], height: int, width: int) -> UInt8[np.ndarray, "height width 3"]:
    """Return the whole image as large as fits, centred on white. Lanczos, as Phantom, SkyReels-V3 and RefAlign resize."""
    h, w = picture.shape[:2]
    size = (width, int(width / (w / h))) if w / h > width / height else (int(height * (w / h)), height)
    fitted = Image.fromarray(picture).resize((max(1, size[0]), max(1, size[1])), Image.Resampling.LANCZOS)
    return on_white(np.asarray(fitted), height, width)


def letterboxed_bilinear(
    picture: UInt8[np.ndarray, "h w 3"], height: int, width: int
) -> UInt8[np.ndarray, "height width 3"]:
    """Return the whole image as large as fits, centred on white. Bilinear without antialiasing, as VACE, then rounded."""
    h, w = picture.shape[:2]
    scale = min(height / h, width / w)
    size = max(1, int(h * scale)), max(1, int(w * scale))
    pixels = torch.from_numpy(np.ascontiguousarray(picture)).movedim(-1, 0)[None].float()
    fitted = torch.nn.functional.interpolate(pixels, size=size, mode="bilinear", align_corners=False)[0]
    return on_white(fitted.round().clamp(0, 255).byte().movedim(0, -1).numpy(), height, width)


def cropped(picture: UInt8[np.ndarray, "h w 3"], height: int, width: int) -> UInt8[np.ndarray, "height width 3"]:
    """Return the largest centre crop with the aspect ratio of height x width, resized to it. Bicubic.

    The same as a2data.media.pictures.crop_resize, for frames of video, which cannot be imported here; a test compares them.
    """
    h, w = picture.shape[:2]
    rows = h if h / w < height / width else max(1, int(w / width * height))
    columns = max(1, int(h / height * width)) if h / w < height / width else w
    top, left = (h - rows) // 2, (w - columns) // 2
    return np.asarray(Image.fromarray(picture[top : top + rows, left : left + columns]).resize((width, height)))


def as_tensor(frames: UInt8[np.ndarray, "n h w 3"]) -> Float[torch.Tensor, "n 3 h w"]:
    """Return images as VAE input: float32, -1 to 1."""
    return torch.from_numpy(frames.transpose(0, 3, 1, 2).copy()).float().div(255).mul(2).sub(1)


def slots(count: int, repeat: bool = True) -> list[int]:
    """Return the number of video frames for each of `count` references.

    The VAE encodes the first frame, and each group of four that follows, into one latent frame. With 1, 4, 4, … frames every
    reference therefore has its own latent frame. Without `repeat` (an arm of the paper's ablation) each has one video frame.
    """
    return [1] + [STRIDE if repeat else 1] * (count - 1)


def head_frames(count: int) -> int:
    """Return the number of leading frames that hold the references and are cut off: 4 n, so that 4 m + 1 frames remain."""
    return STRIDE * count


def check_size(height: int, width: int, frames: int, references: int) -> None:
    """Raise ValueError for a height or width not divisible by 16, frames that are not 4 n + 1, or too many references."""
    if height % 16 or width % 16:
        suggestion = f"{max(16, round(height / 16) * 16)} x {max(16, round(width / 16) * 16)}"
        raise ValueError(f"{height} x {width} px: height and width must be divisible by 16; {suggestion} is close")
    if frames % 4 != 1:
        raise ValueError(
            f"{frames} frames: the VAE takes 4 n + 1, such as {frames // 4 * 4 + 1} or {frames // 4 * 4 + 5}"
        )
    if head_frames(references) >= frames:
        raise ValueError(f"{references} references take {head_frames(references)} of {frames} frames: none is left")


def lay_out(references: Float[torch.Tensor, "n 3 h w"], frames: int, repeat: bool = True) -> torch.Tensor:
    """Return the condition video, the references followed by mid-grey: (n, 3, h, w) in -1 to 1 -> (1, 3, frames, h, w).

    With one reference this is Wan's image-to-video condition. Raises ValueError if the references leave no frame.
    """
    lengths = slots(len(references), repeat)
    if head_frames(len(references)) >= frames:
        raise ValueError(
            f"{len(references)} references take {head_frames(len(references))} of {frames} frames: none is left"
        )
    head = torch.cat([r[:, None].expand(-1, n, -1, -1) for r, n in zip(references, lengths, strict=True)], dim=1)
    rest = head.new_zeros(3, frames - sum(lengths), *head.shape[2:])
    return torch.cat([head, rest], dim=1)[None]


def mask(count: int, frames: int, height: int, width: int, repeat: bool = True) -> Float[torch.Tensor, "1 4 t h w"]:
    """Return the mask of the references' video frames, 1 or 0, with four frames folded into the channels of each latent frame.

    `height` and `width` are latent sizes; `frames` counts video frames (4 m + 1).
    """
    is_reference = torch.zeros(frames)
    is_reference[: sum(slots(count, repeat))] = 1
    latent_mask = torch.cat([is_reference[:1].expand(STRIDE), is_reference[1:]]).view(-1, STRIDE).T  # (4, t)
    return latent_mask[None, :, :, None, None].expand(1, STRIDE, latent_mask.shape[1], height, width).contiguous()


def condition(
    vae: Any,
    references: Float[torch.Tensor, "n 3 h w"],
    frames: int,
    generator: torch.Generator | None = None,
    repeat: bool = True,
    reference_order: str = "before",
) -> Float[torch.Tensor, "1 20 t lh lw"]:
    """Return the transformer's condition: 4 mask channels and 16 channels of normalised latents.

    references: -1 to 1, at the video's size. reference_order "before": references are laid out as a video and encoded
    together, as released; the VAE is causal, so a reference affects all later latent frames. "after" (an arm of the ablation):
    each is encoded separately, followed by zeros. With a generator the VAE's posterior is sampled, as released; else its mode is
    used, as in Wan.
    """
    if reference_order not in ("before", "after"):
        raise ValueError(f"reference_order must be 'before' or 'after' (the VAE), not {reference_order!r}")
    video = lay_out(references, frames, repeat)
    if reference_order == "before":
        latents = encode(vae, video, generator)
    else:
        separate = [encode(vae, reference[None, :, None], generator) for reference in references]
        rest = separate[0].new_zeros(
            1, separate[0].shape[1], (frames - 1) // STRIDE + 1 - len(separate), *separate[0].shape[3:]
        )
        # one latent frame each, independent of `repeat`
        latents, repeat = torch.cat([*separate, rest], dim=2), True
    height, width = latents.shape[3:]
    mask_channels = mask(len(references), frames, height, width, repeat)
    return torch.cat([mask_channels.to(latents), latents], dim=1)


def no_references(vae: Any, frames: int, height: int, width: int) -> Float[torch.Tensor, "1 20 t lh lw"]:
    """Return the condition without references: a mask of 0 and the latents of mid-grey (the VAE's mode).

    Together with image tokens of zeros instead of CLIP's, this defines "without references", both for reference dropout in
    training and for reference guidance in sampling. Grey also follows the references in other conditions, so the input is in
    distribution; latents of zeros would not correspond to any video. Zero tokens are identical after the embedder, so their
    number does not reveal the number of references. height and width are the video's, px; no random numbers are drawn.
    """
    latents = encode(vae, torch.zeros(1, 3, frames, height, width))
    mask_channels = latents.new_zeros(1, STRIDE, *latents.shape[2:])
    return torch.cat([mask_channels, latents], dim=1)


def encode(
    vae: Any, video: torch.Tensor, generator: torch.Generator | None = None
) -> Float[torch.Tensor, "b 16 t lh lw"]:
    """Return normalised latents, float32, of video (b, 3, frames, h, w) in -1 to 1: sampled with a generator, else the mode."""
    posterior = vae.encode(video.to(vae.device, vae.dtype)).latent_dist
    latents = (posterior.mode() if generator is None else posterior.sample(generator)).float()
    mean, std = (
        torch.tensor(v).view(1, -1, 1, 1, 1).to(latents) for v in (vae.config.latents_mean, vae.config.latents_std)
    )
    # this order of operations is bit-identical to Wan's pipeline
    return (latents - mean) * (1 / std)


def image_tokens(encoder: Any, processor: Any, squares: UInt8[np.ndarray, "n s s 3"]) -> Float[torch.Tensor, "1 m d"]:
    """Return CLIP's penultimate layer for all square references, concatenated: (1, 257 n, 1280) for ViT-H/14."""
    pixels = processor(images=[Image.fromarray(s) for s in squares], return_tensors="pt").pixel_values
    layers = encoder(pixels.to(encoder.device, encoder.dtype), output_hidden_states=True).hidden_states
    return layers[-2].reshape(1, -1, layers[-2].shape[-1])
