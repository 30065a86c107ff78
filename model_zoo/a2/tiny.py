"""Small stand-ins for Wan's autoencoder and encoders, fitted to a data set in seconds, to try training on a CPU.

They have the interfaces of the real models, but not their quality. The autoencoder is linear: principal components of pieces of
video, 4 frames x 8 x 8 pixels each, plus the piece's position in the image. The text and image encoders are frozen random
networks of the real classes: they distinguish inputs, but do not understand words or objects. The tokenizer is trained on the
captions.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers.configuration_utils import ConfigMixin, register_to_config
from diffusers.models.autoencoders.vae import DecoderOutput, DiagonalGaussianDistribution
from diffusers.models.modeling_outputs import AutoencoderKLOutput
from diffusers.models.modeling_utils import ModelMixin
from jaxtyping import Float, UInt8

from model_zoo.a2 import references
from model_zoo.a2.transformer import network_class

TIME, SPACE, CHANNELS = 4, 8, 16  # as Wan's autoencoder
CONTENT_CHANNELS = 12  # latent channels with content; the others encode the position
VALUES = TIME * SPACE * SPACE * 3  # values per piece
DETERMINISTIC_LOGVAR = -30.0  # log variance of a deterministic posterior
DIM = 64  # dimension of text and image tokens
ANCHOR = 16.0  # constant in two dimensions of an untrained network's tokens
GAIN = 8.0  # approximate maximum by which it multiplies a value
PATCH = 4 * CHANNELS  # values per token: 2 x 2 pieces
NOISE_WEIGHT, CONDITION_WEIGHT = 0.2, 6.0  # initial weight factors: noisy latents; position, references and mask
TRANSFORMER = {
    "num_attention_heads": 4,
    "attention_head_dim": 40,
    "in_channels": 36,
    "out_channels": 16,
    "text_dim": DIM,
    "image_dim": DIM,
    "added_kv_proj_dim": 160,
    "freq_dim": 64,
    "ffn_dim": 320,
    "num_layers": 2,
    "rope_max_seq_len": 128,
}
WITHOUT_IMAGE = {"in_channels": CHANNELS, "image_dim": None, "added_kv_proj_dim": None}
TRANSFORMERS: dict[str, dict[str, Any]] = {  # by conditioning
    "a2": TRANSFORMER,
    "appended": TRANSFORMER | WITHOUT_IMAGE,
    "vace": TRANSFORMER | WITHOUT_IMAGE | {"vace_layers": [0, 1]},
}


class PatchAutoencoder(ModelMixin, ConfigMixin):
    """Linear transform of pieces of video with AutoencoderKLWan's interface.

    As in AutoencoderKLWan, the first frame has its own latent frame (it is repeated to four frames), and each group of four that
    follows has one. A piece is decoded from its own latents and those of its eight neighbours by least squares, which reduces
    block edges.

    The last four channels are the same for every video and encode a piece's position (Liu et al. 2018, arXiv 1807.03247). Wan's
    transformer only has relative positions, from which a small network cannot infer top and bottom.
    """

    temperal_downsample = (False, True, True)  # diffusers' spelling; VACE's pipeline derives the strides from it

    @register_to_config
    def __init__(
        self,
        z_dim: int = CHANNELS,
        latents_mean: Sequence[float] = (0.0,) * CHANNELS,
        latents_std: Sequence[float] = (1.0,) * CHANNELS,
        scale_factor_temporal: int = TIME,
        scale_factor_spatial: int = SPACE,
    ) -> None:
        super().__init__()
        self.mean = torch.nn.Parameter(torch.zeros(VALUES), requires_grad=False)
        self.components = torch.nn.Parameter(torch.zeros(VALUES, CONTENT_CHANNELS), requires_grad=False)
        self.decoder = torch.nn.Conv2d(CONTENT_CHANNELS, VALUES, 3, padding=1, padding_mode="replicate").requires_grad_(
            False
        )

    def encode(self, x: Float[torch.Tensor, "b 3 f h w"], return_dict: bool = True) -> AutoencoderKLOutput | tuple[Any]:
        """Encode video, -1 to 1, to a deterministic posterior over (b, 16, (f - 1) / 4 + 1, h / 8, w / 8)."""
        content = ((pieces(x) - self.mean) @ self.components).movedim(-1, 1)
        position = (
            position_encoding(*content.shape[3:])
            .to(content)[None, :, None]
            .expand(len(content), -1, content.shape[2], -1, -1)
        )
        latents = torch.cat([content, position], 1)
        posterior = DiagonalGaussianDistribution(
            torch.cat([latents, torch.full_like(latents, DETERMINISTIC_LOGVAR)], 1)
        )
        return AutoencoderKLOutput(latent_dist=posterior) if return_dict else (posterior,)

    def decode(self, z: Float[torch.Tensor, "b 16 t h w"], return_dict: bool = True) -> DecoderOutput | tuple[Any]:
        """Decode latents to video, (b, 3, 4 (t - 1) + 1, 8 h, 8 w), -1 to 1."""
        b, _, t, h, w = z.shape
        decoded = self.decoder(z[:, :CONTENT_CHANNELS].transpose(1, 2).flatten(0, 1)).view(
            b, t, TIME, SPACE, SPACE, 3, h, w
        )
        video = decoded.permute(0, 5, 1, 2, 6, 3, 7, 4).reshape(b, 3, t * TIME, h * SPACE, w * SPACE).clamp(-1, 1)
        video = torch.cat([video[:, :, :TIME].mean(2, keepdim=True), video[:, :, TIME:]], 2)
        return DecoderOutput(sample=video) if return_dict else (video,)


def pieces(video: Float[torch.Tensor, "b 3 f h w"]) -> Float[torch.Tensor, "b t lh lw values"]:
    """Split video into pieces of 4 frames x 8 x 8 pixels; the first frame is repeated to four."""
    padded = torch.cat([video[:, :, :1].expand(-1, -1, TIME - 1, -1, -1), video], 2)
    b, c, f, h, w = padded.shape
    grid = padded.view(b, c, f // TIME, TIME, h // SPACE, SPACE, w // SPACE, SPACE)
    return grid.permute(0, 2, 4, 6, 3, 5, 7, 1).reshape(b, f // TIME, h // SPACE, w // SPACE, VALUES)


def position_encoding(height: int, width: int) -> Float[torch.Tensor, "4 height width"]:
    """Return a position encoding of the pieces of an image: two vertical and two horizontal waves, -1 to 1."""
    vertical, horizontal = (torch.pi * (torch.arange(n) + 0.5) / n for n in (height, width))
    waves = [torch.cos(wave * (1 + n)) for n in range(2) for wave in (vertical, horizontal)]
    return torch.stack([w.view((-1, 1) if n % 2 == 0 else (1, -1)).expand(height, width) for n, w in enumerate(waves)])


def fit_autoencoder(clips: Sequence[UInt8[np.ndarray, "_ h w 3"]]) -> PatchAutoencoder:
    """Fit the transform to clips of 4 n + 1 frames, with height and width divisible by 8, by PCA. Takes seconds."""
    videos = [torch.from_numpy(c.copy()).movedim(-1, 0)[None].float().div(127.5).sub(1) for c in clips]
    clip_pieces = [pieces(v) for v in videos]
    flat = torch.cat([p.reshape(-1, VALUES) for p in clip_pieces]).double()
    mean = flat.mean(0)
    _, vectors = torch.linalg.eigh((flat - mean).T @ (flat - mean) / len(flat))
    components = vectors[:, -CONTENT_CHANNELS:].flip(1)
    # the sign of an eigenvector is arbitrary: fix it, for the same result on any machine
    components = components * components.gather(0, components.abs().argmax(0, keepdim=True)).sign()
    latents = (flat - mean) @ components
    # one scale for all components: weak ones would otherwise dominate the loss with noise
    max_std = float(latents.std(0).max().clamp_min(1e-3))
    num_position = CHANNELS - CONTENT_CHANNELS
    autoencoder = PatchAutoencoder(
        latents_mean=[*latents.mean(0).tolist(), *[0.0] * num_position],
        latents_std=[*[max_std] * CONTENT_CHANNELS, *[2.0] * num_position],
    ).eval()
    autoencoder.mean.copy_(mean)
    autoencoder.components.copy_(components)
    fit_decoder(autoencoder, clip_pieces)
    return autoencoder


def fit_decoder(autoencoder: PatchAutoencoder, clip_pieces: Sequence[torch.Tensor]) -> None:
    """Fit the decoder by least squares, from the latents of a piece and its eight neighbours to its pixels."""
    gram, moment = torch.zeros((), dtype=torch.double), torch.zeros((), dtype=torch.double)
    for piece_values in clip_pieces:
        latents = ((piece_values - autoencoder.mean) @ autoencoder.components)[0].movedim(-1, 1)
        neighbourhoods = torch.nn.functional.unfold(torch.nn.functional.pad(latents, (1, 1, 1, 1), "replicate"), 3)
        features = torch.nn.functional.pad(neighbourhoods.transpose(1, 2).flatten(0, 1), (0, 1), value=1.0).double()
        gram = gram + features.T @ features
        moment = moment + features.T @ piece_values.reshape(-1, VALUES).double()
    ridge = 1e-6 * gram.diagonal().mean() * torch.eye(len(gram), dtype=torch.double)
    solution = torch.linalg.solve(gram + ridge, moment)
    autoencoder.decoder.weight.copy_(solution[:-1].T.view(VALUES, CONTENT_CHANNELS, 3, 3))
    assert autoencoder.decoder.bias is not None
    autoencoder.decoder.bias.copy_(solution[-1])


def train_tokenizer(captions: Sequence[str], size: int = 512):
    """Train a byte-level BPE tokenizer of at most `size` tokens, for any text. "" becomes one token, as with UMT5."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=size,
        special_tokens=["<pad>", "</s>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(captions, trainer)
    tokenizer.post_processor = processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 1)])
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="<pad>", eos_token="</s>", model_max_length=512
    )


@torch.no_grad()
def patch_statistics(autoencoder: PatchAutoencoder, clips: Sequence[UInt8[np.ndarray, "_ h w 3"]]) -> tuple[Any, Any]:
    """Return the second moments of patches (2 x 2 pieces, 16 channels each), (64, 64), and the latents of mid-grey, (16,)."""
    patch_list = []
    for clip in clips:
        latents = references.encode(autoencoder, references.as_tensor(clip).movedim(0, 1)[None])[0]
        patch_list.append(
            latents.unflatten(2, (-1, 2)).unflatten(4, (-1, 2)).permute(1, 2, 4, 3, 5, 0).reshape(-1, PATCH)
        )
    patches = torch.cat(patch_list).double()
    grey = references.encode(autoencoder, torch.zeros(1, 3, 1, 2 * SPACE, 2 * SPACE)).mean((2, 3, 4))
    return patches.T @ patches / len(patches), grey.flatten()


def principal_directions(products: Float[torch.Tensor, "64 64"]) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the principal directions of patches as columns, (64, 64), and the variances of 16 groups of four of them, (16,).

    The groups repeat four times, so that direction n belongs to group n % 16: 16 gains suffice for all directions.
    """
    variances, vectors = torch.linalg.eigh(products.double())
    variances, vectors = variances.flip(0).clamp_min(0), vectors.flip(1)
    vectors = vectors * vectors.gather(0, vectors.abs().argmax(0, keepdim=True)).sign()  # fixes the sign
    order = torch.arange(PATCH).view(CHANNELS, 4).T.flatten()
    return vectors[:, order].float(), variances.view(CHANNELS, 4).mean(1).float()


@torch.no_grad()
def init_linear(network: Any, products: Float[torch.Tensor, "64 64"], grey: Float[torch.Tensor, " 16"]) -> None:
    """Initialise a WanTransformer3DModel to predict the best linear estimate of each patch alone (Wiener filter).

    For x = (1 - s) clean + s noise, the estimate of noise - clean is gain(s) x along each principal direction of clean patches,
    whose second moments are given. A short training would spend most of its steps on learning that; what remains to be trained is
    the contribution of neighbours, references and prompt.

    The noisy patch, in its principal directions, occupies dimensions of its own; the condition's values, minus `grey` (the value
    where nothing is given), follow. The output also subtracts the latter, as an estimate of the clean patch. Two dimensions hold
    large constants: they determine the scale in the normalisation layers instead of the patch, so the network is nearly linear.
    The last layer multiplies by 1 + gain(s) and also adds gain(s); a dimension of zeros per group of directions yields the latter
    alone, to be subtracted. Attention and feed-forward weight the condition more than the noisy patch.
    """
    embedding, width = network.patch_embedding.weight, network.proj_out.weight.shape[1]
    anchors, condition_start = slice(PATCH + CHANNELS, PATCH + CHANNELS + 2), PATCH + CHANNELS + 2
    num_components = min(CHANNELS, (width - condition_start - 1) // 4)  # number of condition components
    vectors, variances = principal_directions(products)
    embedding.zero_()
    network.patch_embedding.bias.zero_()
    network.proj_out.weight.zero_()
    network.proj_out.bias.zero_()
    network.scale_shift_table.zero_()
    scale = (2 * ANCHOR**2 / width) ** 0.5  # divisor of the normalisation
    embedding[:PATCH, :CHANNELS, 0] = vectors.T.view(PATCH, 2, 2, CHANNELS).permute(0, 3, 1, 2)
    network.proj_out.weight[:, :PATCH] = scale * GAIN * vectors
    network.proj_out.weight[:, PATCH : PATCH + CHANNELS] = -scale * GAIN * vectors.view(PATCH, 4, CHANNELS).sum(1)
    conditioned = embedding.shape[1] > CHANNELS
    for position in range(4) if conditioned else ():
        row, column = divmod(position, 2)
        for channel in range(num_components):
            dim = condition_start + position * num_components + channel
            embedding[dim, CHANNELS + 4 + channel, 0, row, column] = 1
            network.patch_embedding.bias[dim] = -grey[channel]
            network.proj_out.weight[position * CHANNELS + channel, dim] = -scale
    if not conditioned:
        network.proj_out.weight[:, condition_start:].normal_(0, 0.02 * scale)
    else:
        embedding[condition_start + 4 * num_components, CHANNELS : CHANNELS + 4] = 1 / 4  # the mask: 4 at references
    network.patch_embedding.bias[anchors] = torch.tensor([ANCHOR, -ANCHOR])
    init_timestep_gains(network, variances, PATCH)
    for block in network.blocks:
        for layer in (block.attn1.to_q, block.attn1.to_k, block.attn1.to_v, block.attn2.to_q, block.ffn.net[0].proj):
            layer.weight.mul_(scale)
            layer.weight[:, : PATCH + CHANNELS] *= NOISE_WEIGHT if conditioned else 1
            layer.weight[:, anchors] = 0
            layer.weight[:, condition_start:] *= CONDITION_WEIGHT if conditioned else 1
        for layer in (block.attn1.to_out[0], block.attn2.to_out[0], block.ffn.net[2]):
            layer.weight.mul_(0.2)
            layer.weight[:condition_start] = 0  # leaves the noisy patch unchanged
            layer.bias.zero_()
        block.scale_shift_table.zero_()
        # gates of attention and feed-forward, which are nearly 0 by default
        block.scale_shift_table[:, [2, 5]] = 1
        init_local_attention(block.attn1, network.rope)
    for block in getattr(network, "vace_blocks", ()):
        block.proj_out.weight.mul_(0.2)
        block.proj_out.weight[:condition_start] = 0
        block.proj_out.bias.zero_()


def init_local_attention(attention: Any, rope: Any) -> None:
    """Initialise two heads to attend to the same position in all frames, decaying with distance (rotary positions).

    Training finds such heads first, but slowly (Trockman and Kolter 2023, arXiv 2305.09828, on other transformers).
    """
    size = attention.to_q.weight.shape[0] // attention.heads
    for head in (0, 1):
        head_rows = slice(head * size, (head + 1) * size)
        for layer in (attention.to_q, attention.to_k):
            layer.weight[head_rows] *= 0.5
            layer.bias[head_rows] = 0
            for axis in (rope.t_dim, rope.t_dim + rope.h_dim):  # fastest rotations by row and by column
                layer.bias[head * size + axis : head * size + axis + 2] = 2.0


def init_timestep_gains(network: Any, variance: torch.Tensor, values: int) -> None:
    """Fit the timestep embedding so that the last layer applies the gain of each noise level."""
    level = torch.linspace(0.005, 1, 2000, dtype=torch.double)[:, None]
    signal = variance.double().clamp_min(1e-3)
    gain = (level - (1 - level) * signal) / ((1 - level) ** 2 * signal + level**2)
    embedder = network.condition_embedder
    first, last = embedder.time_embedder.linear_1, embedder.time_embedder.linear_2
    features = torch.nn.functional.silu(first(embedder.timesteps_proj(level[:, 0].float() * 1000))).double()
    features = torch.nn.functional.pad(features, (0, 1), value=1.0)
    gram = features.T @ features + 1e-6 * len(features) * torch.eye(features.shape[1], dtype=torch.double)
    solution = torch.linalg.solve(gram, features.T @ (gain / GAIN - 1))  # (hidden + 1, components)
    for start in range(0, values + CHANNELS, CHANNELS):
        last.weight[start : start + CHANNELS] = solution[:-1].T
        last.bias[start : start + CHANNELS] = solution[-1]
    last.weight[values + CHANNELS :] *= 0.1
    last.bias[values + CHANNELS :] = 0
    embedder.time_proj.weight *= 0.1
    embedder.time_proj.bias.zero_()


def save_initial_checkpoint(
    folder: Path, clips: Sequence[np.ndarray], captions: Sequence[str], seed: int = 0, conditioning: str = "a2"
) -> None:
    """Write a folder for model_zoo.a2.pipeline.load: encoders fitted to this data set, and an untrained transformer.

    A complete folder is not rewritten. The same data and seed give the same networks.
    """
    from transformers import CLIPImageProcessor, CLIPVisionConfig, CLIPVisionModel, UMT5Config, UMT5EncoderModel

    with torch.no_grad():
        autoencoder = fit_autoencoder(clips)
    tokenizer = train_tokenizer(captions)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        text = UMT5Config(
            d_model=DIM, d_kv=16, d_ff=128, num_heads=4, num_layers=2, vocab_size=len(tokenizer), dropout_rate=0.0
        )
        image = CLIPVisionConfig(
            hidden_size=DIM,
            intermediate_size=128,
            num_hidden_layers=3,
            num_attention_heads=4,
            image_size=64,
            patch_size=16,
        )
        network = network_class(conditioning)(**TRANSFORMERS[conditioning])
        init_linear(network, *patch_statistics(autoencoder, clips))
        parts = {
            "vae": autoencoder,
            "tokenizer": tokenizer,
            "text_encoder": UMT5EncoderModel(text),
            "transformer": network,
        }
        if conditioning == "a2":
            size = {"size": {"shortest_edge": 64}, "crop_size": {"height": 64, "width": 64}}
            parts |= {"image_encoder": CLIPVisionModel(image), "image_processor": CLIPImageProcessor(**size)}
    for name, part in parts.items():
        part.save_pretrained(folder / name)
