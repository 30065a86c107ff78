"""Small stand-ins for Wan's autoencoder and encoders, made from a data set in seconds, so that a trainer can be tried on a CPU.

They have the interfaces of the real ones and nothing of their quality. The autoencoder is linear: principal components of
pieces of video, 4 frames x 8 x 8 pixels each. The text and image encoders are frozen random networks of the real classes:
they tell inputs apart, and know nothing of words or things. The tokenizer is trained on the captions.
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

TIME, SPACE, CHANNELS = 4, 8, 16  # as Wan's autoencoder
VALUES = TIME * SPACE * SPACE * 3  # of a piece
CERTAIN = -30.0  # log variance of a posterior that is one point
DIM = 64  # of tokens of text and image
TRANSFORMER = {
    "num_attention_heads": 4,
    "attention_head_dim": 24,
    "in_channels": 36,
    "out_channels": 16,
    "text_dim": DIM,
    "image_dim": DIM,
    "added_kv_proj_dim": 96,
    "freq_dim": 64,
    "ffn_dim": 256,
    "num_layers": 2,
    "rope_max_seq_len": 128,
}


class PatchAutoencoder(ModelMixin, ConfigMixin):
    """AutoencoderKLWan's interface over a linear transform of pieces of video.

    As there, the first frame has a frame of latents to itself (it is taken as if it stood still for four), and each four that
    follow have one. A piece is decoded from its own latents and those of the eight around it, by least squares: fewer edges.
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
        self.components = torch.nn.Parameter(torch.zeros(VALUES, z_dim), requires_grad=False)
        self.decoder = torch.nn.Conv2d(z_dim, VALUES, 3, padding=1, padding_mode="replicate").requires_grad_(False)

    def encode(self, x: Float[torch.Tensor, "b 3 f h w"], return_dict: bool = True) -> AutoencoderKLOutput | tuple[Any]:
        """Video, -1 to 1, as a posterior over (b, 16, (f - 1) / 4 + 1, h / 8, w / 8) that is one point."""
        latents = ((pieces(x) - self.mean) @ self.components).movedim(-1, 1)
        posterior = DiagonalGaussianDistribution(torch.cat([latents, torch.full_like(latents, CERTAIN)], 1))
        return AutoencoderKLOutput(latent_dist=posterior) if return_dict else (posterior,)

    def decode(self, z: Float[torch.Tensor, "b 16 t h w"], return_dict: bool = True) -> DecoderOutput | tuple[Any]:
        """Latents as video, (b, 3, 4 (t - 1) + 1, 8 h, 8 w), -1 to 1."""
        b, _, t, h, w = z.shape
        made = self.decoder(z.transpose(1, 2).flatten(0, 1)).view(b, t, TIME, SPACE, SPACE, 3, h, w)
        video = made.permute(0, 5, 1, 2, 6, 3, 7, 4).reshape(b, 3, t * TIME, h * SPACE, w * SPACE).clamp(-1, 1)
        video = torch.cat([video[:, :, :TIME].mean(2, keepdim=True), video[:, :, TIME:]], 2)
        return DecoderOutput(sample=video) if return_dict else (video,)


def pieces(video: Float[torch.Tensor, "b 3 f h w"]) -> Float[torch.Tensor, "b t lh lw values"]:
    """Video cut into pieces of 4 frames x 8 x 8 pixels; the first frame is repeated to four."""
    whole = torch.cat([video[:, :, :1].expand(-1, -1, TIME - 1, -1, -1), video], 2)
    b, c, f, h, w = whole.shape
    cut = whole.view(b, c, f // TIME, TIME, h // SPACE, SPACE, w // SPACE, SPACE)
    return cut.permute(0, 2, 4, 6, 3, 5, 7, 1).reshape(b, f // TIME, h // SPACE, w // SPACE, VALUES)


def fit_autoencoder(clips: Sequence[UInt8[np.ndarray, "_ h w 3"]]) -> PatchAutoencoder:
    """The transform that keeps most of these clips: 4 n + 1 frames each, height and width divisible by 8. Takes seconds."""
    videos = [torch.from_numpy(c.copy()).movedim(-1, 0)[None].float().div(127.5).sub(1) for c in clips]
    cut = [pieces(v) for v in videos]
    flat = torch.cat([p.reshape(-1, VALUES) for p in cut]).double()
    mean = flat.mean(0)
    _, vectors = torch.linalg.eigh((flat - mean).T @ (flat - mean) / len(flat))
    components = vectors[:, -CHANNELS:].flip(1)
    components = (
        components * components.gather(0, components.abs().argmax(0, keepdim=True)).sign()
    )  # one sign on any machine
    latents = (flat - mean) @ components
    # one measure for all: what is hardly to be seen hardly counts in the loss, whose noise would drown the rest otherwise
    most = float(latents.std(0).max().clamp_min(1e-3))
    made = PatchAutoencoder(latents_mean=latents.mean(0).tolist(), latents_std=[most] * CHANNELS).eval()
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
    autoencoder.decoder.weight.copy_(solved[:-1].T.view(VALUES, CHANNELS, 3, 3))
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
def begin_with_noise(network: Any) -> None:
    """Let an untrained WanTransformer3DModel say about the noise that is in its input: velocity without the video.

    The noised patch lies in 64 dimensions of the tokens by a rotation, the strongest components of the condition in the rest,
    and the output turns the 64 back. As layers are normalised, this holds at any noise level. Learning it takes most of a short
    training; what is left to learn is the video.
    """
    embedding, width = network.patch_embedding.weight, network.proj_out.weight.shape[1]
    turn = torch.linalg.qr(torch.randn(width, width))[0]
    values = CHANNELS * 4  # of a patch of 2 x 2 pieces
    rest = (width - values) // 4
    embedding.zero_()
    embedding[:, :CHANNELS] = turn[:, :values].view(width, CHANNELS, 1, 2, 2)
    shown = slice(CHANNELS + 4, CHANNELS + 4 + rest)  # behind the noised latents and the mask
    embedding[:, shown] = turn[:, values : values + 4 * rest].view(width, rest, 1, 2, 2)
    back = turn[:, :values].view(width, CHANNELS, 1, 2, 2).permute(2, 3, 4, 1, 0)
    network.proj_out.weight.copy_(back.reshape(values, width) * (values / width) ** 0.5)
    for part in (network.patch_embedding.bias, network.proj_out.bias, network.scale_shift_table):
        part.zero_()
    for block in network.blocks:
        for part in (block.attn1.to_out[0], block.attn2.to_out[0], block.ffn.net[2]):
            part.weight.mul_(0.5)


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
        begin_with_noise(network)
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
