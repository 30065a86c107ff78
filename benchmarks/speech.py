"""Precision and recall of voice activity on speech whose times are known.

python -m benchmarks.speech
"""

import numpy as np
from scipy.signal import lfilter

RATE_HZ = 16_000
# first three formants of [a], [i], [u], [e], [o] of a man, Hz (Peterson & Barney 1952)
VOWELS = ((730, 1090, 2440), (270, 2290, 3010), (300, 870, 2240), (530, 1840, 2480), (570, 840, 2410))
BANDWIDTHS = (80, 100, 120)  # of the formants, Hz
SYLLABLE_S = 0.15


def voice(seconds: float, pitch_hz: float = 120.0, seed: int = 0) -> np.ndarray:
    """Return vowels, (n,) float32 at RATE_HZ: a pulse train of varying pitch through three formants. It is not real speech."""
    rng, count = np.random.default_rng(seed), round(seconds * RATE_HZ)
    pitch = pitch_hz * (1 + 0.1 * np.sin(2 * np.pi * 0.8 * np.arange(count) / RATE_HZ))
    pulses = np.diff(np.floor(np.cumsum(pitch) / RATE_HZ), prepend=0) + 0.003 * rng.standard_normal(count)
    made, step = np.zeros(count), round(SYLLABLE_S * RATE_HZ)
    state = [np.zeros(2)] * 3
    for start in range(0, count, step):
        part = pulses[start : start + step]
        for n, (formant, bandwidth) in enumerate(zip(VOWELS[(2 * start // step + seed) % 5], BANDWIDTHS, strict=True)):
            radius = np.exp(-np.pi * bandwidth / RATE_HZ)
            poles = [1, -2 * radius * np.cos(2 * np.pi * formant / RATE_HZ), radius**2]
            part, state[n] = lfilter([1 - radius], poles, part, zi=state[n])
        made[start : start + step] = part * np.sin(np.pi * np.arange(len(part)) / step) ** 0.3
    return (0.5 * made / np.abs(made).max()).astype(np.float32)
