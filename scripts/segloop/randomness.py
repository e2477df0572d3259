"""Random numbers that depend on what they are for, never on who draws them or when."""

import hashlib

import numpy as np


def seed_of(*key: int | str) -> int:
    """Return a 63-bit seed made from a key such as ("augment", seed, step)."""
    digest = hashlib.sha256("\x1f".join(map(str, key)).encode()).digest()
    return int.from_bytes(digest[:8], "little") >> 1


def generator(*key: int | str) -> np.random.Generator:
    """Return a counter-based generator (Philox) for a key; the same key always gives the same numbers."""
    return np.random.Generator(np.random.Philox(seed_of(*key)))
