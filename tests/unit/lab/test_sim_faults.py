"""Faults by published rates: how many, of which kinds, and the same for the same seed."""

from collections import Counter

import pytest

from tramontane.lab.sim.faults import KINDS, Fault, Model, faults

BLADES = [f"gpu-{number:04d}" for number in range(1, 513)]
DAYS = 90.0


def all_of(model: Model, seed: int = 1, days: float = DAYS) -> list[Fault]:
    return list(faults(model, BLADES, days, seed))


def test_they_come_in_order_and_at_the_rate_given() -> None:
    found = all_of(Model(rate=6.5))
    assert found == sorted(found)
    assert len(found) == pytest.approx(len(BLADES) * DAYS * 6.5 / 1000, rel=0.15)
    assert all(0 <= one.at_s < DAYS * 86400 for one in found)


def test_kinds_have_their_shares() -> None:
    found = Counter(one.kind.name for one in all_of(Model(rate=50)))
    total, weights = sum(found.values()), sum(kind.weight for kind in KINDS)
    for kind in KINDS:
        assert found[kind.name] / total == pytest.approx(kind.weight / weights, abs=0.02)


def test_a_part_of_them_needs_new_parts() -> None:
    found = all_of(Model(rate=50, parts=0.08))
    assert sum(one.needs_parts for one in found) / len(found) == pytest.approx(0.08, abs=0.02)
    assert not any(one.needs_parts for one in all_of(Model(parts=0)))


def test_the_same_seed_brings_the_same_and_another_seed_others() -> None:
    assert all_of(Model()) == all_of(Model())
    assert [one.at_s for one in all_of(Model())] != [one.at_s for one in all_of(Model(), seed=2)]


def test_a_blades_faults_do_not_depend_on_the_others() -> None:
    alone = list(faults(Model(rate=50), BLADES[:1], DAYS, 1))
    among = [one for one in all_of(Model(rate=50)) if one.blade == BLADES[0]]
    assert alone == among
    assert alone


def test_a_longer_run_begins_like_the_shorter_one() -> None:
    short = all_of(Model(), days=30)
    assert all_of(Model(), days=60)[: len(short)] == short


def test_lemons_fail_more_often_and_the_mean_stays() -> None:
    found = all_of(Model(rate=20, lemons=0.05, lemon_times=10))
    assert len(found) == pytest.approx(len(BLADES) * DAYS * 20 / 1000, rel=0.2)
    by_blade = sorted(Counter(one.blade for one in found).values(), reverse=True)
    few = by_blade[: len(BLADES) // 20]
    assert sum(few) / len(found) > 0.25


def test_infants_die_early() -> None:
    found = all_of(Model(rate=6.5, infant=5, infant_days=10))
    early = sum(one.at_s < 10 * 86400 for one in found)
    late = sum(one.at_s >= 80 * 86400 for one in found)
    assert early > 2 * late


def test_racks_fail_whole_and_together() -> None:
    found = all_of(Model(rate=0, rack_rate=20))
    assert found
    times = Counter(one.at_s for one in found)
    assert set(times.values()) == {16}
    assert all(one.kind.takes_node for one in found)


def test_no_rate_no_faults() -> None:
    assert all_of(Model(rate=0)) == []
