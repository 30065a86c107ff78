"""How references enter SkyReels-A2 (arXiv 2504.02436): read, ordered, fitted, laid out along time, masked.

The one place that knows it, for trainer, sampler and benchmark alike, bit for bit. A reference goes two ways: at the size of the
video into the head of the condition (the spatial branch), and as a white square into CLIP (the semantic branch).
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Float, UInt8
from PIL import Image, ImageOps, UnidentifiedImageError

ROLES = ("human", "object", "background")  # in the order in which A2 was trained on them
CLIP_SIDE_PX = 512  # of the white square, which CLIP's own processor makes smaller
STRIDE = 4  # frames of video to one frame of latents, behind the first
MAX_PIXELS = 50_000_000  # 0.15 GB in RGB; checked in the header, before a pixel is decoded
MAX_SIDE_PX = 10_000  # a long, thin picture is padded to the proportions of the video: 10,000 x 10,000 are 0.3 GB
MIN_SIDE_PX = 16


class Reference(NamedTuple):
    """A picture of somebody, something or some place that is to be in the video."""

    role: str  # one of ROLES
    picture: UInt8[np.ndarray, "h w 3"]  # RGB; a subject stands on white, where it stood in its own frame


class Prepared(NamedTuple):
    """References as the two branches take them, in the order of ROLES."""

    frames: UInt8[np.ndarray, "n height width 3"]
    squares: UInt8[np.ndarray, "n side side 3"]


def read_picture(path: str | Path) -> UInt8[np.ndarray, "h w 3"]:
    """A picture from a file, as it is shown: turned as its EXIF says, on white where it is transparent, RGB whatever it was.

    Raises ValueError, naming the file, for what is no picture, and for one with a side under 16 or over 10,000 px or over 50
    megapixels.
    """
    try:
        with Image.open(path) as image:
            pixels = image.width * image.height
            if pixels > MAX_PIXELS:
                raise ValueError(
                    f"{path} has {pixels / 1e6:.4g} megapixels; a reference has 50 at most: make it smaller"
                )
            if max(image.size) > MAX_SIDE_PX:
                raise ValueError(
                    f"{path} is {image.width} x {image.height} px; a reference has {MAX_SIDE_PX} a side at most: make it smaller"
                )
            image.load()
            shown = ImageOps.exif_transpose(image)
    # ultralytics, once imported, puts a function in the place of Image.open that asks for one package more
    except (UnidentifiedImageError, Image.DecompressionBombError, ImportError) as error:
        raise ValueError(f"{path} is no picture that can be read ({error})") from error
    except OSError as error:
        if isinstance(error, FileNotFoundError | IsADirectoryError | PermissionError):
            raise
        raise ValueError(f"{path} is damaged ({error})") from error
    if min(shown.size) < MIN_SIDE_PX:
        raise ValueError(f"{path} is {shown.width} x {shown.height} px; a reference has {MIN_SIDE_PX} a side at least")
    if shown.has_transparency_data:
        cut_out = shown.convert("RGBA")
        shown = Image.alpha_composite(Image.new("RGBA", cut_out.size, "white"), cut_out)
    return np.asarray(shown.convert("RGB"))


def prepare(references: Sequence[Reference], height: int, width: int) -> Prepared:
    """References in A2's order (people, things, places; in one role, as given), at the video's size and as squares for CLIP.

    Subjects are padded with white, places are cropped, so that no border appears in the scene. Raises ValueError for no
    reference, an unknown role, and a picture that is not (h, w, 3) uint8.
    """
    if not references:
        raise ValueError("no reference: A2 takes one at least")
    for number, (role, picture) in enumerate(references):
        if role not in ROLES:
            raise ValueError(f"reference {number} has the role {role!r}; the roles are {', '.join(ROLES)}")
        if picture.ndim != 3 or picture.shape[2] != 3 or picture.dtype != np.uint8:
            raise ValueError(f"reference {number} is {picture.dtype} {picture.shape}; it must be (h, w, 3) uint8 RGB")
    inorder = sorted(references, key=lambda r: ROLES.index(r.role))
    fit = {"human": padded, "object": padded, "background": cropped}
    return Prepared(
        np.stack([fit[r.role](r.picture, height, width) for r in inorder]),
        np.stack([padded(r.picture, CLIP_SIDE_PX, CLIP_SIDE_PX) for r in inorder]),
    )


def padded(picture: UInt8[np.ndarray, "h w 3"], height: int, width: int) -> UInt8[np.ndarray, "height width 3"]:
    """The whole picture in the middle of height x width, white around it. Bicubic, as the released model's demo does it."""
    h, w = picture.shape[:2]
    rows = max(0, int((height / width * w - h) / 2))
    columns = max(0, int((width / height * h - w) / 2))
    white = np.pad(picture, ((rows, rows), (columns, columns), (0, 0)), constant_values=255)
    return np.asarray(Image.fromarray(white).resize((width, height)))


def cropped(picture: UInt8[np.ndarray, "h w 3"], height: int, width: int) -> UInt8[np.ndarray, "height width 3"]:
    """The middle of the picture, as much of it as has the proportions of height x width. Bicubic."""
    h, w = picture.shape[:2]
    rows = h if h / w < height / width else max(1, int(w / width * height))
    columns = max(1, int(h / height * width)) if h / w < height / width else w
    top, left = (h - rows) // 2, (w - columns) // 2
    return np.asarray(Image.fromarray(picture[top : top + rows, left : left + columns]).resize((width, height)))


def as_tensor(frames: UInt8[np.ndarray, "n h w 3"]) -> Float[torch.Tensor, "n 3 h w"]:
    """Pictures as the VAE takes them: float32, -1 to 1."""
    return torch.from_numpy(frames.transpose(0, 3, 1, 2).copy()).float().div(255).mul(2).sub(1)


def slots(count: int, repeat: bool = True) -> list[int]:
    """Frames of video that each of `count` references stands for.

    The VAE makes one frame of latents of the first frame and of each four that follow, so that with 1, 4, 4, … every reference
    has one frame of latents to itself. Without `repeat` (an arm of the paper's ablation) each has one frame of video.
    """
    return [1] + [STRIDE if repeat else 1] * (count - 1)


def head_frames(count: int) -> int:
    """Frames at the start of a sampled video that show the references and are cut off: 4 n, so that 4 m + 1 frames remain."""
    return STRIDE * count


def check_size(height: int, width: int, frames: int, references: int) -> None:
    """Raises ValueError for a height or width not divisible by 16, frames that are not 4 n + 1, or too many references."""
    if height % 16 or width % 16:
        near = f"{max(16, round(height / 16) * 16)} x {max(16, round(width / 16) * 16)}"
        raise ValueError(f"{height} x {width} px: height and width must be divisible by 16; {near} is near")
    if frames % 4 != 1:
        raise ValueError(
            f"{frames} frames: the VAE takes 4 n + 1; {frames // 4 * 4 + 1} or {frames // 4 * 4 + 5} are near"
        )
    if head_frames(references) >= frames:
        raise ValueError(f"{references} references take {head_frames(references)} frames of {frames}: none is left")


def lay_out(references: Float[torch.Tensor, "n 3 h w"], frames: int, repeat: bool = True) -> torch.Tensor:
    """The condition video: the references one after another, then mid-grey. (n, 3, h, w) in -1 to 1 -> (1, 3, frames, h, w).

    With one reference this is Wan's condition for image to video. Raises ValueError where the references leave no frame.
    """
    lengths = slots(len(references), repeat)
    if head_frames(len(references)) >= frames:
        raise ValueError(
            f"{len(references)} references take {head_frames(len(references))} frames of {frames}: none is left"
        )
    head = torch.cat([r[:, None].expand(-1, n, -1, -1) for r, n in zip(references, lengths, strict=True)], dim=1)
    rest = head.new_zeros(3, frames - sum(lengths), *head.shape[2:])
    return torch.cat([head, rest], dim=1)[None]


def mask(count: int, frames: int, height: int, width: int, repeat: bool = True) -> Float[torch.Tensor, "1 4 t h w"]:
    """Which frames of video are given: 1 or 0, each four folded into the channels of one frame of latents, at latents' size.

    `height` and `width` are those of the latents, `frames` those of the video (4 m + 1).
    """
    given = torch.zeros(frames)
    given[: sum(slots(count, repeat))] = 1
    by_latent = torch.cat([given[:1].expand(STRIDE), given[1:]]).view(-1, STRIDE).T  # (4, t)
    return by_latent[None, :, :, None, None].expand(1, STRIDE, by_latent.shape[1], height, width).contiguous()


def condition(
    vae: Any,
    references: Float[torch.Tensor, "n 3 h w"],
    frames: int,
    generator: torch.Generator | None = None,
    repeat: bool = True,
    combine: str = "before",
) -> Float[torch.Tensor, "1 20 t lh lw"]:
    """What the transformer gets beside the noise: 4 channels of mask, 16 of normalised latents.

    references: -1 to 1, at the video's size. `combine` "before": laid out as a video, then through the VAE as one, as released;
    the VAE is causal, so that a reference leaves a trace in all that follows. "after" (an arm of the ablation): each through
    the VAE alone, then zeros. With a generator the VAE's posterior is sampled, as released; without, its mode is taken, as Wan
    does.
    """
    if combine not in ("before", "after"):
        raise ValueError(f"references are combined 'before' or 'after' the VAE, not {combine!r}")
    video = lay_out(references, frames, repeat)
    if combine == "before":
        latents = encode(vae, video, generator)
    else:
        alone = [encode(vae, reference[None, :, None], generator) for reference in references]
        rest = alone[0].new_zeros(1, alone[0].shape[1], (frames - 1) // STRIDE + 1 - len(alone), *alone[0].shape[3:])
        latents, repeat = torch.cat([*alone, rest], dim=2), True  # one frame of latents each, whatever is repeated
    height, width = latents.shape[3:]
    given = mask(len(references), frames, height, width, repeat)
    return torch.cat([given.to(latents), latents], dim=1)


def no_references(vae: Any, frames: int, height: int, width: int) -> Float[torch.Tensor, "1 20 t lh lw"]:
    """The condition of a video without references: mask 0 everywhere, latents of nothing but mid-grey (the VAE's mode).

    This, and image tokens of zeros in place of CLIP's, is what "without references" means, to a trainer that drops them and to
    the sampler's guidance on them. Grey is what stands behind the references too, so that the network sees nothing new; zeros
    as latents would be a picture that no video has. Zeros as tokens are all alike after the embedder, so that their number does
    not tell how many references there were. height and width are those of the video in pixels; no generator is drawn from.
    """
    latents = encode(vae, torch.zeros(1, 3, frames, height, width))
    given = latents.new_zeros(1, STRIDE, *latents.shape[2:])
    return torch.cat([given, latents], dim=1)


def encode(
    vae: Any, video: torch.Tensor, generator: torch.Generator | None = None
) -> Float[torch.Tensor, "b 16 t lh lw"]:
    """Video, (b, 3, frames, h, w) in -1 to 1, as normalised latents, float32: sampled with a generator, else the mode."""
    posterior = vae.encode(video.to(vae.device, vae.dtype)).latent_dist
    latents = (posterior.mode() if generator is None else posterior.sample(generator)).float()
    mean, std = (
        torch.tensor(v).view(1, -1, 1, 1, 1).to(latents) for v in (vae.config.latents_mean, vae.config.latents_std)
    )
    return (latents - mean) * (1 / std)  # in this order: equal to Wan's pipeline to the last bit


def image_tokens(encoder: Any, processor: Any, squares: UInt8[np.ndarray, "n s s 3"]) -> Float[torch.Tensor, "1 m d"]:
    """CLIP's last but one layer over every reference's white square, one after another: (1, 257 n, 1280) for ViT-H/14."""
    pixels = processor(images=[Image.fromarray(s) for s in squares], return_tensors="pt").pixel_values
    layers = encoder(pixels.to(encoder.device, encoder.dtype), output_hidden_states=True).hidden_states
    return layers[-2].reshape(1, -1, layers[-2].shape[-1])
