"""Random numbers that depend on what they are for, never on who draws them or when."""

import hashlib
from typing import Final

import numpy as np
import numpy.typing as npt

_GOLDEN: Final = np.uint64(0x9E3779B97F4A7C15)
_MIXING: Final = (
    (np.uint64(30), np.uint64(0xBF58476D1CE4E5B9)),
    (np.uint64(27), np.uint64(0x94D049BB133111EB)),
)


def seed_of(*key: int | str) -> int:
    """Return a 63-bit seed made from a key such as ("augment", seed, step)."""
    digest = hashlib.sha256("\x1f".join(map(str, key)).encode()).digest()
    return int.from_bytes(digest[:8], "little") >> 1


def generator(*key: int | str) -> np.random.Generator:
    """Return a counter-based generator (Philox) for a key; the same key always gives the same numbers."""
    return np.random.Generator(np.random.Philox(seed_of(*key)))


def uniforms(counter: npt.NDArray[np.uint64], *key: int | str) -> npt.NDArray[np.float64]:
    """Return one uniform number in the open interval 0..1 for each counter, whatever else is asked with it.

    Parameters
    ----------
    counter : uint64 [N]
        What each number is for, such as prediction ids.
    key
        What all of them are for.

    Returns
    -------
    float64 [N]

    References
    ----------
    SplitMix64: G. L. Steele, D. Lea, C. H. Flood, *Fast splittable pseudorandom number generators*, OOPSLA 2014.
    """
    bits = counter * _GOLDEN + np.uint64(seed_of(*key))
    for shift, factor in _MIXING:
        bits = (bits ^ (bits >> shift)) * factor
    bits ^= bits >> np.uint64(31)
    # With the half, which keeps 0 and 1 out, 52 bits are what a float64 holds.
    return ((bits >> np.uint64(12)).astype(np.float64) + 0.5) / 2.0**52
