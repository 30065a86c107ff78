"""Small stand-ins for Wan's autoencoder and encoders, made from a data set in seconds, so that a trainer can be tried on a CPU.

They have the interfaces of the real ones and nothing of their quality. The autoencoder is linear: principal components of pieces
of video, 4 frames x 8 x 8 pixels each, and where a piece lies in the picture. The text and image encoders are frozen random
networks of the real classes: they tell inputs apart, and know nothing of words or things. The tokenizer is trained on
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

TIME, SPACE, CHANNELS = 4, 8, 16  # as Wan's autoencoder
SEEN = 12  # of the channels that show something; the others say where it is
VALUES = TIME * SPACE * SPACE * 3  # of a piece
CERTAIN = -30.0  # log variance of a posterior that is one point
DIM = 64  # of tokens of text and image
ANCHOR = 16.0  # the constant in two dimensions of an untrained network's tokens
GAIN = 8.0  # about the largest by which it multiplies a value
PATCH = 4 * CHANNELS  # values of a token: 2 x 2 pieces
NOISED, GIVEN = 0.2, 6.0  # by how much layers look less at what is noised, and more at place, references and mask
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


class PatchAutoencoder(ModelMixin, ConfigMixin):
    """AutoencoderKLWan's interface over a linear transform of pieces of video.

    As there, the first frame has a frame of latents to itself (it is taken as if it stood still for four), and each four that
    follow have one. A piece is decoded from its own latents and those of the eight around it, by least squares: fewer edges.

    The last four channels are the same for every video: where a piece lies (Liu et al. 2018, arXiv 1807.03247). Wan's transformer
    knows what is beside what, and a small one has no means to find from it what is above and what below.
    """

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
        self.components = torch.nn.Parameter(torch.zeros(VALUES, SEEN), requires_grad=False)
        self.decoder = torch.nn.Conv2d(SEEN, VALUES, 3, padding=1, padding_mode="replicate").requires_grad_(False)

    def encode(self, x: Float[torch.Tensor, "b 3 f h w"], return_dict: bool = True) -> AutoencoderKLOutput | tuple[Any]:
        """Video, -1 to 1, as a posterior over (b, 16, (f - 1) / 4 + 1, h / 8, w / 8) that is one point."""
        seen = ((pieces(x) - self.mean) @ self.components).movedim(-1, 1)
        where = places(*seen.shape[3:]).to(seen)[None, :, None].expand(len(seen), -1, seen.shape[2], -1, -1)
        latents = torch.cat([seen, where], 1)
        posterior = DiagonalGaussianDistribution(torch.cat([latents, torch.full_like(latents, CERTAIN)], 1))
        return AutoencoderKLOutput(latent_dist=posterior) if return_dict else (posterior,)

    def decode(self, z: Float[torch.Tensor, "b 16 t h w"], return_dict: bool = True) -> DecoderOutput | tuple[Any]:
        """Latents as video, (b, 3, 4 (t - 1) + 1, 8 h, 8 w), -1 to 1."""
        b, _, t, h, w = z.shape
        made = self.decoder(z[:, :SEEN].transpose(1, 2).flatten(0, 1)).view(b, t, TIME, SPACE, SPACE, 3, h, w)
        video = made.permute(0, 5, 1, 2, 6, 3, 7, 4).reshape(b, 3, t * TIME, h * SPACE, w * SPACE).clamp(-1, 1)
        video = torch.cat([video[:, :, :TIME].mean(2, keepdim=True), video[:, :, TIME:]], 2)
        return DecoderOutput(sample=video) if return_dict else (video,)


def pieces(video: Float[torch.Tensor, "b 3 f h w"]) -> Float[torch.Tensor, "b t lh lw values"]:
    """Video cut into pieces of 4 frames x 8 x 8 pixels; the first frame is repeated to four."""
    whole = torch.cat([video[:, :, :1].expand(-1, -1, TIME - 1, -1, -1), video], 2)
    b, c, f, h, w = whole.shape
    cut = whole.view(b, c, f // TIME, TIME, h // SPACE, SPACE, w // SPACE, SPACE)
    return cut.permute(0, 2, 4, 6, 3, 5, 7, 1).reshape(b, f // TIME, h // SPACE, w // SPACE, VALUES)


def places(height: int, width: int) -> Float[torch.Tensor, "4 height width"]:
    """Where each piece of a picture lies: two waves down and two across, between -1 and 1."""
    down, across = (torch.pi * (torch.arange(n) + 0.5) / n for n in (height, width))
    waves = [torch.cos(wave * (1 + n)) for n in range(2) for wave in (down, across)]
    return torch.stack([w.view((-1, 1) if n % 2 == 0 else (1, -1)).expand(height, width) for n, w in enumerate(waves)])


def fit_autoencoder(clips: Sequence[UInt8[np.ndarray, "_ h w 3"]]) -> PatchAutoencoder:
    """The transform that keeps most of these clips: 4 n + 1 frames each, height and width divisible by 8. Takes seconds."""
    videos = [torch.from_numpy(c.copy()).movedim(-1, 0)[None].float().div(127.5).sub(1) for c in clips]
    cut = [pieces(v) for v in videos]
    flat = torch.cat([p.reshape(-1, VALUES) for p in cut]).double()
    mean = flat.mean(0)
    _, vectors = torch.linalg.eigh((flat - mean).T @ (flat - mean) / len(flat))
    components = vectors[:, -SEEN:].flip(1)
    # one sign on any machine
    components = components * components.gather(0, components.abs().argmax(0, keepdim=True)).sign()
    latents = (flat - mean) @ components
    # one measure for all: what is hardly to be seen hardly counts in the loss, whose noise would drown the rest otherwise
    most = float(latents.std(0).max().clamp_min(1e-3))
    rest = CHANNELS - SEEN
    made = PatchAutoencoder(
        latents_mean=[*latents.mean(0).tolist(), *[0.0] * rest], latents_std=[*[most] * SEEN, *[2.0] * rest]
    ).eval()
    made.mean.copy_(mean)
    made.components.copy_(components)
    fit_decoder(made, cut)
    return made


def fit_decoder(autoencoder: PatchAutoencoder, cut: Sequence[torch.Tensor]) -> None:
    """Least squares from the latents of a piece and its eight neighbours to its pixels."""
    normal, answer = torch.zeros((), dtype=torch.double), torch.zeros((), dtype=torch.double)
    for pieces_of_one in cut:
        latents = ((pieces_of_one - autoencoder.mean) @ autoencoder.components)[0].movedim(-1, 1)
        around = torch.nn.functional.unfold(torch.nn.functional.pad(latents, (1, 1, 1, 1), "replicate"), 3)
        features = torch.nn.functional.pad(around.transpose(1, 2).flatten(0, 1), (0, 1), value=1.0).double()
        normal = normal + features.T @ features
        answer = answer + features.T @ pieces_of_one.reshape(-1, VALUES).double()
    ridge = 1e-6 * normal.diagonal().mean() * torch.eye(len(normal), dtype=torch.double)
    solved = torch.linalg.solve(normal + ridge, answer)
    autoencoder.decoder.weight.copy_(solved[:-1].T.view(VALUES, SEEN, 3, 3))
    assert autoencoder.decoder.bias is not None
    autoencoder.decoder.bias.copy_(solved[-1])


def train_tokenizer(captions: Sequence[str], size: int = 512):
    """A byte-level BPE tokenizer of at most `size` tokens; any text can be spelt in it. "" becomes one token, as with UMT5."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
    from transformers import PreTrainedTokenizerFast

    words = Tokenizer(models.BPE())
    words.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    words.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=size,
        special_tokens=["<pad>", "</s>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    words.train_from_iterator(captions, trainer)
    words.post_processor = processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 1)])
    return PreTrainedTokenizerFast(tokenizer_object=words, pad_token="<pad>", eos_token="</s>", model_max_length=512)


@torch.no_grad()
def measured(autoencoder: PatchAutoencoder, clips: Sequence[UInt8[np.ndarray, "_ h w 3"]]) -> tuple[Any, Any]:
    """Mean products of the values of a patch (2 x 2 pieces, 16 channels each), (64, 64), and the latents of mid-grey, (16,)."""
    seen = []
    for clip in clips:
        latents = references.encode(autoencoder, references.as_tensor(clip).movedim(0, 1)[None])[0]
        seen.append(latents.unflatten(2, (-1, 2)).unflatten(4, (-1, 2)).permute(1, 2, 4, 3, 5, 0).reshape(-1, PATCH))
    patches = torch.cat(seen).double()
    grey = references.encode(autoencoder, torch.zeros(1, 3, 1, 2 * SPACE, 2 * SPACE)).mean((2, 3, 4))
    return patches.T @ patches / len(patches), grey.flatten()


def directions(products: Float[torch.Tensor, "64 64"]) -> tuple[torch.Tensor, torch.Tensor]:
    """Principal directions of patches as columns, (64, 64), and the variance of 16 kinds of them, four alike in each.

    The kinds repeat four times, so that direction n is of kind n % 16: a network that knows 16 gains knows all.
    """
    variances, vectors = torch.linalg.eigh(products.double())
    variances, vectors = variances.flip(0).clamp_min(0), vectors.flip(1)
    vectors = vectors * vectors.gather(0, vectors.abs().argmax(0, keepdim=True)).sign()  # one sign on any machine
    inorder = torch.arange(PATCH).view(CHANNELS, 4).T.flatten()
    return vectors[:, inorder].float(), variances.view(CHANNELS, 4).mean(1).float()


@torch.no_grad()
def init_linear(network: Any, products: Float[torch.Tensor, "64 64"], grey: Float[torch.Tensor, " 16"]) -> None:
    """Let an untrained WanTransformer3DModel say the best linear guess of each patch by itself (Wiener's filter).

    Of x = (1 - s) clean + s noise, the guess of noise - clean is gain(s) x along each principal direction of clean patches, whose
    mean products are given. A short training would spend most of its steps on learning that; what is left to learn is what
    neighbours, references and words tell.

    A noised patch lies along its directions in dimensions of their own, the condition's values, less `grey` (what stands where
    nothing is given), behind them; the output takes the latter off, too, as if they were a guess of what is clean. Two dimensions
    hold large constants: as layers are normalised, these set the measure, and not the patch, so that what follows is nearly
    linear. The last layer multiplies by 1 + gain(s) and adds gain(s) also; a dimension of zeros for each kind of direction gives
    the latter alone, to be taken off. Attention and feed-forward look at what is given more than at noise.
    """
    embedding, width = network.patch_embedding.weight, network.proj_out.weight.shape[1]
    anchors, given = slice(PATCH + CHANNELS, PATCH + CHANNELS + 2), PATCH + CHANNELS + 2
    shown = min(CHANNELS, (width - given - 1) // 4)  # components of the condition
    vectors, variances = directions(products)
    embedding.zero_()
    network.patch_embedding.bias.zero_()
    network.proj_out.weight.zero_()
    network.proj_out.bias.zero_()
    network.scale_shift_table.zero_()
    unit = (2 * ANCHOR**2 / width) ** 0.5  # what normalisation divides by
    embedding[:PATCH, :CHANNELS, 0] = vectors.T.view(PATCH, 2, 2, CHANNELS).permute(0, 3, 1, 2)
    network.proj_out.weight[:, :PATCH] = unit * GAIN * vectors
    network.proj_out.weight[:, PATCH : PATCH + CHANNELS] = -unit * GAIN * vectors.view(PATCH, 4, CHANNELS).sum(1)
    for place in range(4):
        row, column = divmod(place, 2)
        for channel in range(shown):
            said = given + place * shown + channel
            embedding[said, CHANNELS + 4 + channel, 0, row, column] = 1
            network.patch_embedding.bias[said] = -grey[channel]
            network.proj_out.weight[place * CHANNELS + channel, said] = -unit
    embedding[given + 4 * shown, CHANNELS : CHANNELS + 4] = 1 / 4  # the mask: 4 where a reference stands
    network.patch_embedding.bias[anchors] = torch.tensor([ANCHOR, -ANCHOR])
    gains(network, variances, PATCH)
    for block in network.blocks:
        for layer in (block.attn1.to_q, block.attn1.to_k, block.attn1.to_v, block.attn2.to_q, block.ffn.net[0].proj):
            layer.weight.mul_(unit)
            layer.weight[:, : PATCH + CHANNELS] *= NOISED
            layer.weight[:, anchors] = 0
            layer.weight[:, given:] *= GIVEN
        for layer in (block.attn1.to_out[0], block.attn2.to_out[0], block.ffn.net[2]):
            layer.weight.mul_(0.2)
            layer.weight[:given] = 0  # what is noised stays as it is
            layer.bias.zero_()
        block.scale_shift_table.zero_()
        block.scale_shift_table[:, [2, 5]] = 1  # gates of attention and feed-forward, which are all but shut otherwise
        look_around(block.attn1, network.rope)


def look_around(attention: Any, rope: Any) -> None:
    """Two heads begin by looking at the same place of the picture in all frames, the nearer the more (rotary positions).

    Such heads are what training finds first, and slowly (Trockman and Kolter 2023, arXiv 2305.09828, on other transformers).
    """
    size = attention.to_q.weight.shape[0] // attention.heads
    for head in (0, 1):
        mine = slice(head * size, (head + 1) * size)
        for layer in (attention.to_q, attention.to_k):
            layer.weight[mine] *= 0.5
            layer.bias[mine] = 0
            for axis in (rope.t_dim, rope.t_dim + rope.h_dim):  # the fastest of the rotations by row, and by column
                layer.bias[head * size + axis : head * size + axis + 2] = 2.0


def gains(network: Any, variance: torch.Tensor, values: int) -> None:
    """Fit the embedding of time, so that the last layer multiplies each value by what its noise level asks for."""
    level = torch.linspace(0.005, 1, 2000, dtype=torch.double)[:, None]
    some = variance.double().clamp_min(1e-3)
    gain = (level - (1 - level) * some) / ((1 - level) ** 2 * some + level**2)
    embedder = network.condition_embedder
    first, last = embedder.time_embedder.linear_1, embedder.time_embedder.linear_2
    known = torch.nn.functional.silu(first(embedder.timesteps_proj(level[:, 0].float() * 1000))).double()
    known = torch.nn.functional.pad(known, (0, 1), value=1.0)
    normal = known.T @ known + 1e-6 * len(known) * torch.eye(known.shape[1], dtype=torch.double)
    solved = torch.linalg.solve(normal, known.T @ (gain / GAIN - 1))  # (hidden + 1, components)
    for start in range(0, values + CHANNELS, CHANNELS):
        last.weight[start : start + CHANNELS] = solved[:-1].T
        last.bias[start : start + CHANNELS] = solved[-1]
    last.weight[values + CHANNELS :] *= 0.1
    last.bias[values + CHANNELS :] = 0
    embedder.time_proj.weight *= 0.1
    embedder.time_proj.bias.zero_()


def save_start(folder: Path, clips: Sequence[np.ndarray], captions: Sequence[str], seed: int = 0) -> None:
    """A folder of the layout that a2.load opens: encoders made from this data set, and an untrained transformer.

    Not written again where it is whole; the same data and seed give the same networks.
    """
    from diffusers import WanTransformer3DModel
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
        network = WanTransformer3DModel(**TRANSFORMER)
        init_linear(network, *measured(autoencoder, clips))
        parts = {
            "vae": autoencoder,
            "tokenizer": tokenizer,
            "text_encoder": UMT5EncoderModel(text),
            "image_encoder": CLIPVisionModel(image),
            "image_processor": CLIPImageProcessor(size={"shortest_edge": 64}, crop_size={"height": 64, "width": 64}),
            "transformer": network,
        }
    for name, part in parts.items():
        part.save_pretrained(folder / name)
