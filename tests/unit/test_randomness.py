import subprocess
import sys

import numpy as np
from scipy.stats import chisquare, kstest

from segloop.randomness import generator, seed_of, uniforms


def test_the_same_key_gives_the_same_numbers_and_another_key_others() -> None:
    assert generator("a", 1).random(4).tolist() == generator("a", 1).random(4).tolist()
    keys = [("a", 1), ("a", 2), ("b", 1), ("a", 1, 0), ("a1",), ("a", "1", "")]
    assert len({seed_of(*key) for key in keys}) == len(keys)


def test_parts_of_a_key_do_not_run_together() -> None:
    assert seed_of(1, 23) != seed_of(12, 3)


def test_seeds_are_63_bits_and_the_same_in_every_process() -> None:
    seeds = [seed_of("x", number) for number in range(200)]
    assert all(0 <= seed < 1 << 63 for seed in seeds)
    assert max(seeds) > 1 << 61
    code = "from segloop.randomness import seed_of; print(seed_of('x', 0))"
    environment = {"PYTHONHASHSEED": "7", "PYTHONPATH": ":".join(sys.path)}
    result = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert int(result.stdout) == seeds[0]


def test_numbers_look_uniform() -> None:
    first = np.array([generator("u", number).random() for number in range(2000)])
    assert abs(first.mean() - 0.5) < 0.03
    assert abs(np.corrcoef(first[:-1], first[1:])[0, 1]) < 0.1


def test_counted_numbers_depend_on_their_counter_and_key_alone() -> None:
    counter = np.arange(50, dtype=np.uint64) << np.uint64(40)
    all_of_them = uniforms(counter, "u", 1)
    assert np.array_equal(uniforms(counter[::-1][:20], "u", 1), all_of_them[::-1][:20])
    assert not np.isin(uniforms(counter, "u", 2), all_of_them).any()
    assert len(uniforms(counter[:0], "u", 1)) == 0


def test_counted_numbers_look_uniform_and_independent() -> None:
    # Ids as predictions have them: rows count up, iteration and shard stand in high bits.
    counter = (np.uint64(1) << np.uint64(56)) + np.arange(100_000, dtype=np.uint64)
    first, second = uniforms(counter, "u", 1), uniforms(counter, "u", 2)
    assert 0 < first.min() < first.max() < 1
    assert kstest(first, "uniform").pvalue > 1e-4
    for other in (second, np.roll(first, 1)):
        assert abs(np.corrcoef(first, other)[0, 1]) < 0.02
    cells = np.histogram2d(first[:-1], first[1:], bins=10, range=[[0, 1], [0, 1]])[0]
    assert chisquare(cells.ravel()).pvalue > 1e-4
