"""A resumable training loop over packed shards in plain PyTorch.

    python examples/train_40_lines.py SHARDS [STATE [STEPS]]

The model is only an illustration: one convolution that predicts the flow-matching velocity from noisy video and references.
"""

import sys
from pathlib import Path

import torch
from torch.nn.functional import mse_loss

from a2data.dataset.loader import Augmentation, Bucket, Loader, rng
from a2data.media.pictures import crop_resize

SEED, BUCKET = 0, Bucket(9, 32, 48)


def tensors(sample):
    """Return video and mean reference, (3, t, h, w) in -1 to 1, the noise and its level, drawn per sample."""
    video = torch.from_numpy(sample.video).permute(3, 0, 1, 2) / 127.5 - 1
    pictures = [torch.tensor(crop_resize(r.picture, BUCKET.height, BUCKET.width)) for r in sample.references]
    shown = [picture.permute(2, 0, 1) / 127.5 - 1 for picture in pictures]
    condition = torch.stack(shown).mean(0) if shown else torch.zeros(3, BUCKET.height, BUCKET.width)
    draw = rng(SEED, sample.epoch, sample.index, "noise")
    noise = torch.from_numpy(draw.standard_normal(tuple(video.shape), "float32"))
    return video, condition[:, None].expand_as(video), noise, torch.tensor(draw.random(), dtype=torch.float32)


def main(shards, out="example.pt", steps=20):
    torch.manual_seed(SEED)
    model = torch.nn.Conv3d(7, 3, kernel_size=3, padding=1)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    augmentation = Augmentation(reference_drop=0.1)
    loader = Loader(shards, seed=SEED, global_batch_size=4, buckets=[BUCKET], num_workers=2, augmentation=augmentation)
    if Path(out).exists():
        saved = torch.load(out, weights_only=True)
        model.load_state_dict(saved["model"]), optimizer.load_state_dict(saved["optimizer"])
        loader.load_state_dict(saved["loader"])
    for _, samples in zip(range(steps), loader, strict=False):
        video, condition, noise, share = map(torch.stack, zip(*map(tensors, samples), strict=True))
        share = share[:, None, None, None, None]
        seen = torch.cat([(1 - share) * video + share * noise, condition, share.expand_as(video[:, :1])], dim=1)
        loss = mse_loss(model(seen), noise - video)
        optimizer.zero_grad(), loss.backward(), optimizer.step()
        print(f"epoch {samples[0].epoch}, step {samples[0].step}: loss {loss:.4f}", flush=True)
        state = {"model": model.state_dict(), "optimizer": optimizer.state_dict(), "loader": loader.state_dict()}
        torch.save(state, f"{out}.new")
        Path(f"{out}.new").replace(out)


if __name__ == "__main__":
    main(*sys.argv[1:3], *map(int, sys.argv[3:4]))
