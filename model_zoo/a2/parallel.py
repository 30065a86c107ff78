"""Sample one video on several processes: CFG, context and VAE-tile parallelism.

diffusers implements Ulysses (Jacobs et al. 2023, arXiv 2309.14509), but not the other two. All processes run the same pipeline
with the same seed and return the same video.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import distributed
from torch.distributed.device_mesh import init_device_mesh

STRIDE_PX = 16  # pixels per token and axis: the VAE's factor of 8 times the transformer's patch size of 2


class ParallelGroups(NamedTuple):
    """Process groups of this process, by what they split; None where nothing is split."""

    cfg: Any = None  # CFG branches, see model_zoo.a2.guidance.predict_branches
    tokens: Any = None  # tokens: a mesh of "ring" and "ulysses"
    world: Any = None  # VAE tiles

    def is_main(self) -> bool:
        """Return whether this is the process that writes the output."""
        return self.world is None or distributed.get_rank() == 0


def groups(cfg: int, tokens: int, device: str = "cpu") -> ParallelGroups:
    """Return this process's groups among cfg x tokens processes. torch.distributed must be initialised.

    Raises ValueError if the product is not the number of processes.
    """
    count = distributed.get_world_size() if distributed.is_initialized() else 1
    if cfg * tokens != count:
        raise ValueError(
            f"--cfg-parallel {cfg} x --context-parallel {tokens} is not the number of processes, {count}: start it with "
            f"torchrun --nproc-per-node {cfg * tokens} -m pipelines.cli sample ..."
        )
    if count == 1:
        return ParallelGroups()
    mesh = init_device_mesh(device, (cfg, 1, tokens), mesh_dim_names=("cfg", "ring", "ulysses"))
    return ParallelGroups(
        cfg=mesh["cfg"].get_group() if cfg > 1 else None,
        tokens=mesh["ring", "ulysses"] if tokens > 1 else None,
        world=distributed.group.WORLD,
    )


def check_tokens(height: int, width: int, frames: int, heads: int, tokens: int) -> None:
    """Raise ValueError if a video's tokens or the network's heads cannot be split evenly over `tokens` processes."""
    count = ((frames - 1) // 4 + 1) * (height // STRIDE_PX) * (width // STRIDE_PX)
    for number, noun in ((count, f"tokens of {frames} frames of {height} x {width}"), (heads, "heads of attention")):
        if number % tokens:
            raise ValueError(f"--context-parallel {tokens}: the {number} {noun} cannot be split evenly")


def split_tokens(transformer: Any, mesh: Any) -> None:
    """Split every video's tokens over the processes of the mesh with diffusers' Ulysses.

    Replaces `transformer.enable_parallelism`, which divides by the number of accelerators: that is 0 on CPU. Raises ValueError
    for attention backends with which each process would silently attend to its own tokens only.
    """
    from diffusers import ContextParallelConfig
    from diffusers.hooks import apply_context_parallel
    from diffusers.models._modeling_parallel import ParallelConfig
    from diffusers.models.attention_dispatch import _AttentionBackendRegistry

    default = _AttentionBackendRegistry.get_active_backend()[0]
    for backend in {processor._attention_backend or default for processor in transformer.attn_processors.values()}:
        if not _AttentionBackendRegistry._is_context_parallel_available(backend):
            raise ValueError(
                f"attention backend {backend.value} does not support context parallelism: remove it or --context-parallel"
            )

    cp_config = ContextParallelConfig(ulysses_degree=mesh["ulysses"].size(), mesh=mesh)
    config = ParallelConfig(context_parallel_config=cp_config)
    config.setup(distributed.get_rank(), distributed.get_world_size(), torch.device(mesh.device_type), mesh=mesh)
    for processor in transformer.attn_processors.values():
        processor._parallel_config = config
    apply_context_parallel(transformer, cp_config, transformer._cp_plan)


def split_tiles(vae: Any, group: Any) -> None:
    """Split the VAE's tiles: each process encodes or decodes every n-th tile, all receive all, and diffusers blends them."""
    vae.enable_tiling()
    vae.tiled_encode = partial(_tiled, vae, "encoder", type(vae).tiled_encode, group)
    vae.tiled_decode = partial(_tiled, vae, "decoder", type(vae).tiled_decode, group)


def _tiled(vae: Any, part: str, tiled: Any, group: Any, x: torch.Tensor, **kwargs: Any) -> Any:
    """Run diffusers' own loop over tiles twice: once to compute the tiles of this process, once to return all of them.

    Tile sizes, order and blending are therefore those of the installed diffusers.
    """
    rank, size = distributed.get_rank(group), distributed.get_world_size(group)
    network, pieces, owners = getattr(vae, part), [], []
    original_forward, tile = network.forward, -1

    def forward_own_tiles(x: torch.Tensor, feat_cache: list, **state: Any) -> torch.Tensor:
        nonlocal tile
        first = feat_cache[0] is None  # cleared by the loop at each new tile
        tile += first
        if tile % size == rank:
            piece = original_forward(x, feat_cache=feat_cache, **state).contiguous()
        else:
            feat_cache[0] = "elsewhere"
            piece = x.new_empty(_output_shape(vae, part, x, first))
        pieces.append(piece)
        owners.append(tile % size)
        return piece

    with _replaced_forward(network, forward_own_tiles):
        tiled(vae, x, **kwargs)
    for owner, piece in zip(owners, pieces, strict=True):
        distributed.broadcast(piece, group=group, group_src=owner)
    results = iter(pieces)
    with _replaced_forward(network, lambda *_, **__: next(results)):
        return tiled(vae, x, **kwargs)


def _output_shape(vae: Any, part: str, x: torch.Tensor, first: bool) -> tuple[int, ...]:
    """Return the output shape of the VAE's encoder or decoder for a tile at one latent frame."""
    space, (batch, _, _, height, width) = vae.spatial_compression_ratio, x.shape
    if part == "encoder":
        return batch, 2 * vae.config.z_dim, 1, height // space, width // space
    frames = 1 if first else vae.config.scale_factor_temporal
    return batch, vae.config.out_channels, frames, height * space, width * space


@contextmanager
def _replaced_forward(network: Any, forward: Any) -> Iterator[None]:
    """Temporarily replace a network's forward pass."""
    previous = network.__dict__.get("forward")
    network.forward = forward
    try:
        yield
    finally:
        del network.forward
        if previous is not None:  # installed by a hook
            network.forward = previous
