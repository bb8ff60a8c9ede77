"""Rows of numbers that quantisers have to get right."""

from __future__ import annotations

import numpy as np


def distributions() -> dict[str, np.ndarray]:
    """Rows of 256 finite values of every kind that has made some quantiser stumble."""
    random = np.random.default_rng(3)
    size = (128, 256)
    normal = random.standard_normal(size)
    signs = random.choice([1, -1], size)
    bits = random.integers(0, 0x7F800000, size).astype(np.uint32).view(np.float32)
    small = random.integers(0, 1 << 23, size).astype(np.uint32).view(np.float32)
    powers = 2.0 ** random.integers(-126, 127, (128, 8)).repeat(32, axis=1)
    around = [1, -1, 0.5, 0.25, 1 - 2**-24, 1 - 2**-23, 1 - 2**-22, 1 + 2**-23]
    largest = float(np.finfo(np.float32).max)
    tiny = 10.0 ** random.uniform(-17, -13, (128, 16)).repeat(16, axis=1)
    rows = {
        "normal": normal,
        "uniform": random.uniform(-1, 1, size),
        "positive": random.uniform(1, 2, size),
        "negative": -random.exponential(1, size),
        "heavy tails": random.standard_cauchy(size),
        "any bits": bits * signs,
        "denormal": small * signs,
        "very small": normal * 10.0 ** random.integers(-46, -30, (128, 8)).repeat(32, axis=1),
        "as good as zero": normal * tiny,
        "huge": normal * 10.0 ** random.integers(33, 39, (128, 1)),
        "squares overflow": normal * 10.0 ** random.integers(12, 22, (128, 16)).repeat(16, axis=1),
        "any scale": normal * 10.0 ** random.integers(-9, 6, (128, 1)),
        "mixed scales": normal * 10.0 ** random.integers(-9, 6, (128, 16)).repeat(16, axis=1),
        "one outlier": normal + (np.arange(256) == random.integers(0, 256, (128, 1))) * 1e4,
        "integers": random.integers(-127, 128, size),
        "ties": random.integers(-255, 256, size) / 2,
        "few": random.choice([0, 1, -1, 0.5, -0.5], size),
        "mostly zero": normal * (random.uniform(0, 1, size) < 0.02),
        "constant": normal[:, :1] * np.ones(256),
        "constant groups": normal[:, :16].repeat(16, axis=1),
        "powers of two": powers * random.choice(around, size),
        "zeros": np.zeros(size),
        "largest": random.choice([largest, -largest, 0, 1], size),
    }
    # To add 0 turns -0 into +0: on negative zeros the referees differ.
    return {
        name: np.clip(row, -largest, largest).astype(np.float32) + np.float32(0)
        for name, row in rows.items()
    }
