"""Ways to damage a file's bytes. Each takes the bytes and a generator, and returns other bytes."""

import random
from collections.abc import Callable

BLOCK = 512  # bytes that one damage of a block covers, at most


def cut_tail(data: bytes, rng: random.Random) -> bytes:
    """Keep 5 to 95 % from the start, as an interrupted copy does."""
    return data[: int(len(data) * rng.uniform(0.05, 0.95))]


def cut_head(data: bytes, rng: random.Random) -> bytes:
    """Drop 1 to 50 % from the start."""
    return data[int(len(data) * rng.uniform(0.01, 0.5)) :]


def flip_bits(data: bytes, rng: random.Random) -> bytes:
    """Flip one bit in each of 1 to 64 bytes."""
    changed = bytearray(data)
    for _ in range(rng.randint(1, 64)):
        changed[rng.randrange(len(changed))] ^= 1 << rng.randrange(8)
    return bytes(changed)


def flip_header_bits(data: bytes, rng: random.Random) -> bytes:
    """Flip one bit in each of 1 to 8 of the first 256 bytes."""
    changed = bytearray(data)
    for _ in range(rng.randint(1, 8)):
        changed[rng.randrange(min(256, len(changed)))] ^= 1 << rng.randrange(8)
    return bytes(changed)


def _overwrite(data: bytes, rng: random.Random, block: bytes) -> bytes:
    start = rng.randrange(max(1, len(data) - len(block)))
    return data[:start] + block + data[start + len(block) :]


def zero_block(data: bytes, rng: random.Random) -> bytes:
    """Overwrite a block with zeros, as a sparse copy does."""
    return _overwrite(data, rng, bytes(rng.randint(16, BLOCK)))


def random_block(data: bytes, rng: random.Random) -> bytes:
    """Overwrite a block with noise."""
    return _overwrite(data, rng, rng.randbytes(rng.randint(16, BLOCK)))


def swap_blocks(data: bytes, rng: random.Random) -> bytes:
    """Exchange two blocks of equal length."""
    size = rng.randint(16, BLOCK)
    a, b = sorted(rng.sample(range(0, len(data) - size, 16), 2))
    b = max(b, a + size)
    return data[:a] + data[b : b + size] + data[a + size : b] + data[a : a + size] + data[b + size :]


def insert_block(data: bytes, rng: random.Random) -> bytes:
    """Insert a block of noise, which shifts all offsets behind it."""
    start = rng.randrange(len(data))
    return data[:start] + rng.randbytes(rng.randint(1, BLOCK)) + data[start:]


def repeat_block(data: bytes, rng: random.Random) -> bytes:
    """Repeat a block, as an upload that was resumed at the wrong offset does."""
    start = rng.randrange(len(data))
    end = min(len(data), start + rng.randint(16, 8 * BLOCK))
    return data[:end] + data[start:]


WAYS: list[Callable[[bytes, random.Random], bytes]] = [
    cut_tail,
    cut_head,
    flip_bits,
    flip_header_bits,
    zero_block,
    random_block,
    swap_blocks,
    insert_block,
    repeat_block,
]
