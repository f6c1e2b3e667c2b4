"""Which rank is slow, from rounds of samples."""

from dataclasses import replace

import pytest

from tramontane.controllers.trainingjob.stragglers import PER_ROUND, Sample, Watch, sample_of
from tramontane.controllers.trainingjob.words import Slow

USUAL = 1.0


def a_round(step: int, **times: float) -> list[Sample]:
    """Return samples at `step`; seats by name: `s3=1.8`."""
    return [Sample(int(name[1:]), name, step, time) for name, time in times.items()]


def watched(*rounds: list[Sample], every: float = 30.0) -> Watch:
    watch = Watch()
    for number, samples in enumerate(rounds):
        watch.take(samples, number * every)
    return watch


SLOW = {"s0": 1.0, "s1": 1.0, "s2": 1.0, "s3": 1.6}
FINE = {"s0": 1.0, "s1": 1.0, "s2": 1.0, "s3": 1.1}


@pytest.mark.parametrize(
    ("rounds", "every", "slow"),
    [
        pytest.param([SLOW] * 3, 30.0, Slow(3, 1.6, 0.0), id="three rounds in a minute"),
        pytest.param([SLOW] * 2, 90.0, None, id="two rounds"),
        pytest.param([SLOW] * 3, 29.0, None, id="less than a minute"),
        pytest.param([SLOW] * 5, 15.0, Slow(3, 1.6, 0.0), id="five rounds in a minute"),
        pytest.param([SLOW, SLOW, FINE, SLOW], 30.0, None, id="it was fast in between"),
        pytest.param([FINE, SLOW, SLOW, SLOW], 30.0, Slow(3, 1.6, 30.0), id="since when"),
        pytest.param([SLOW, SLOW, SLOW, FINE], 30.0, None, id="it is fast again"),
        pytest.param([{**SLOW, "s3": 1.5}] * 3, 30.0, None, id="half as long again is not more"),
        pytest.param([{"s0": 1.0, "s1": 1.6}] * 3, 30.0, Slow(1, 1.6, 0.0), id="two ranks"),
        pytest.param([{"s0": 9.0}] * 3, 30.0, None, id="nobody to compare with"),
        pytest.param([{"s0": 2.0, "s1": 2.0, "s2": 2.0, "s3": 1.0}] * 3, 30.0, None, id="most"),
        pytest.param([{**SLOW, "s0": 2.4, "s4": 1.0, "s5": 1.0}] * 3, 30.0, Slow(0, 2.4, 0.0),
                     id="the slowest of two"),
        pytest.param([dict.fromkeys(SLOW, 9.0)] * 3, 30.0, None, id="all are slow"),
        pytest.param([dict.fromkeys(SLOW, 0.0)] * 3, 30.0, None, id="no time at all"),
        pytest.param([SLOW, {"s0": 1.0}, SLOW, SLOW], 30.0, Slow(3, 1.6, 0.0), id="unread once"),
        pytest.param([SLOW, *[{"s0": 1.0}] * 21, SLOW, SLOW], 30.0, None, id="unread for long"),
    ],
)  # fmt: skip
def test_the_truth_table(rounds: list[dict[str, float]], every: float, slow: Slow | None) -> None:
    samples = [a_round(10 * number, **times) for number, times in enumerate(rounds)]
    found = watched(*samples, every=every).slow()
    assert found == (slow and replace(slow, uid=f"s{slow.seat}"))


def test_the_same_steps_read_thrice_are_one_sample() -> None:
    assert watched(*[a_round(10, **SLOW)] * 4).slow() is None


def test_a_pod_that_is_gone_is_suspected_no_more() -> None:
    watch = watched(*(a_round(step, **SLOW) for step in range(3)))
    watch.keep({"s0", "s1", "s2"})
    assert watch.slow() is None


@pytest.mark.parametrize(
    ("steps", "sample"),
    [
        pytest.param([(1, 1.0)] * 4, None, id="too few"),
        pytest.param([(n, float(n)) for n in range(1, 6)], Sample(7, "u", 5, 3.0), id="enough"),
    ],
)
def test_a_sample(steps: list[tuple[int, float]], sample: Sample | None) -> None:
    assert sample_of(7, "u", steps) == sample


def test_all_ranks_have_their_turn_and_suspects_each() -> None:
    watch = watched(a_round(1, s0=1.0, s1=1.0, s2=1.0, s3=2.0))
    uids = [f"s{number}" for number in range(30)]
    rounds = [watch.choose(uids) for _ in range(5)]

    assert all(len(one) == PER_ROUND and len(set(one)) == PER_ROUND for one in rounds)
    assert all("s3" in one for one in rounds)
    assert set().union(*rounds) == set(uids)


@pytest.mark.parametrize("count", [pytest.param(count, id=str(count)) for count in (0, 1, 5, 8)])
def test_few_ranks_are_all_sampled_once(count: int) -> None:
    uids = [f"s{number}" for number in range(count)]
    watch = Watch()
    assert [sorted(watch.choose(uids)) for _ in range(3)] == [uids] * 3
