import itertools

from hypothesis import given
from hypothesis import strategies as st

from segloop.detection.batching import LARGEST, TRIALS, WINDOW, BatchSize, batches, like_batches


def settle(seconds_of: dict[int, float]) -> BatchSize:
    """Let a batch size try itself, where an image of a batch of so many takes so long; then everything is slow."""
    size = BatchSize("auto")
    for _ in range(100):
        size.measured(size.size, float(size.size), size.size * seconds_of.get(size.size, 1.0))
    return size


def test_a_fixed_size_stays() -> None:
    size = BatchSize(6)
    for _ in range(10):
        size.measured(6, 6.0, 0.001)
    assert (size.size, size.trying) == (6, False)


def test_it_grows_as_long_as_it_pays() -> None:
    size = settle({1: 1.0, 2: 0.6, 4: 0.4, 8: 0.39})
    assert (size.size, size.trying) == (4, False)


def test_it_stops_at_the_largest() -> None:
    assert settle({2**power: 1.0 / 2**power for power in range(12)}).size == LARGEST


def test_batches_that_are_not_full_say_nothing() -> None:
    size = BatchSize("auto")
    for _ in range(TRIALS):
        size.measured(1, 1.0, 1.0)
    assert size.size == 2
    for _ in range(5 * TRIALS):
        size.measured(1, 1.0, 1.0)
    assert (size.size, size.trying) == (2, True)


def test_the_first_batch_of_a_size_only_warms_up() -> None:
    size = BatchSize("auto")
    for seconds in (1.0, 1.0, 1.0, 100.0, 1.0, 1.0):
        size.measured(size.size, float(size.size), seconds)
    assert size.size == 4


def test_memory_halves_it_for_good() -> None:
    size = BatchSize(10)
    sizes = []
    for _ in range(5):
        size.out_of_memory(size.size)
        sizes.append(size.size)
    assert sizes == [5, 2, 1, 1, 1]
    trying = BatchSize("auto")
    trying.size = 8
    trying.out_of_memory(8)
    for _ in range(5):
        trying.measured(4, 4.0, 0.001)
    assert trying.size == 4


@given(
    kinds=st.lists(st.integers(0, 3), max_size=60),
    size=st.integers(1, 5),
)
def test_batches_are_alike_and_nothing_waits_for_ever(kinds: list[int], size: int) -> None:
    taken = itertools.count()
    read = 0

    def items():
        nonlocal read
        for place, kind in enumerate(kinds):
            read = place + 1
            yield place, kind

    seen: set[int] = set()
    for batch in like_batches(items(), BatchSize(size), lambda item: item[1]):
        next(taken)
        assert 0 < len(batch) <= size
        assert len({kind for _, kind in batch}) == 1
        places = [place for place, _ in batch]
        assert places == sorted(places)
        # The oldest that waits leads, and no more wait than the window holds.
        assert places[0] == min(set(range(len(kinds))) - seen)
        assert read - len(seen) <= WINDOW * size
        seen |= set(places)
    assert seen == set(range(len(kinds)))


def test_plain_batches() -> None:
    assert list(batches("abcde", 2)) == [["a", "b"], ["c", "d"], ["e"]]
    assert list(batches("", 2)) == []
