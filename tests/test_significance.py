"""Intervals and tests of differences against exact enumeration, plain loops and cases worked by hand."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from l2d.compare.significance import CELLS, FLIPS, holm, mean_interval, sign_flip_p
from l2d.errors import ConfigError


def exact_p(differences: np.ndarray) -> float:
    """Share of all assignments of signs whose sum is at least as far from zero as the one seen."""
    sums = [
        abs(sum(sign * value for sign, value in zip(signs, differences, strict=True)))
        for signs in itertools.product((-1, 1), repeat=len(differences))
    ]
    return float(np.mean([value >= abs(differences.sum()) - 1e-12 for value in sums]))


@pytest.mark.parametrize(
    "differences",
    [
        [0.3, -0.1, 0.2, 0.5, 0.0, 0.4],
        [1.0, 1.0, 1.0, -1.0, 0.0, 0.0, 1.0],
        [0.1, 0.2, 0.3],
        [0.5, -0.5],
        [0.7],
        [0.1] * 10,
        [-0.63, -0.63, 0.37, -0.5, -0.43, 0.0, -1.0, -0.39, -0.3],
    ],
)
def test_the_randomisation_test_agrees_with_all_assignments_of_signs(differences: list[float]) -> None:
    values, flips = np.array(differences), 100_000
    exact = exact_p(values)
    found = sign_flip_p(values, np.random.default_rng(1), flips)
    assert found == pytest.approx(exact, abs=5 * np.sqrt(exact * (1 - exact) / flips) + 2 / flips)


def test_the_randomisation_test_has_two_sides_and_ignores_users_without_a_difference() -> None:
    values = np.array([0.3, -0.1, 0.2, 0.5, 0.4])
    ps = [
        sign_flip_p(variant, np.random.default_rng(2))
        for variant in (values, -values, np.concatenate([values, np.zeros(1000)]), values[::-1] * 7)
    ]
    # The same draws meet the same sizes; seven times the values tie where the values tie, rounding or not.
    assert len(set(ps)) == 1


def test_no_difference_is_no_evidence_and_a_p_value_is_never_zero() -> None:
    assert sign_flip_p(np.zeros(50), np.random.default_rng(0)) == 1
    assert sign_flip_p(np.ones(400), np.random.default_rng(0)) == 1 / (FLIPS + 1)


def test_p_values_are_uniform_where_two_rows_are_equally_good() -> None:
    rng = np.random.default_rng(3)
    ps = np.array([sign_flip_p(rng.standard_normal(30), rng, 200) for _ in range(400)])
    for level in (0.05, 0.25, 0.5):
        assert (ps <= level).mean() == pytest.approx(level, abs=4 * np.sqrt(level * (1 - level) / 400))


def test_draws_in_several_blocks_are_all_counted() -> None:
    sizes = np.random.default_rng(4).random(3 * CELLS // FLIPS)  # three blocks
    # A sum of zero: every assignment of signs is at least as far away.
    assert sign_flip_p(np.concatenate([sizes, -sizes]), np.random.default_rng(5)) == 1


def test_an_interval_agrees_with_drawing_users_one_by_one() -> None:
    rng = np.random.default_rng(6)
    values = rng.choice([0.0, 0.0, 0.0, 1.0, -1.0, 0.4, -0.2], 300)
    means = [values[rng.integers(0, len(values), len(values))].mean() for _ in range(20_000)]
    low, high = mean_interval(values, np.random.default_rng(7), 20_000)
    assert (low, high) == pytest.approx(tuple(np.percentile(means, [2.5, 97.5])), abs=0.004)
    assert low < values.mean() < high
    assert high - low == pytest.approx(2 * 1.96 * values.std() / np.sqrt(len(values)), rel=0.05)


def test_an_interval_of_one_value_is_that_value() -> None:
    assert mean_interval(np.full(9, 0.25), np.random.default_rng(0)) == (0.25, 0.25)


def test_the_same_seed_draws_the_same() -> None:
    values = np.random.default_rng(8).standard_normal(40)
    for function in (mean_interval, sign_flip_p):
        first, again, other = (function(values, np.random.default_rng(seed)) for seed in (1, 1, 2))
        assert first == again != other


def test_holm_by_hand() -> None:
    # Sorted: .005 x 4, .01 x 3, .03 x 2 = .06, .04 x 1 = .04 but not below .06. (The example of Holm's procedure.)
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.5, 0.6]) == [1.0, 1.0]
    assert holm([0.2]) == [0.2]
    assert holm([]) == []


def test_holm_rejects_what_its_definition_rejects() -> None:
    rng = np.random.default_rng(9)
    for _ in range(50):
        ps = rng.random(7) ** 3
        for level in (0.01, 0.05, 0.2):
            rejected = set()
            for place, index in enumerate(np.argsort(ps)):
                if ps[index] > level / (len(ps) - place):
                    break
                rejected.add(int(index))
            assert {i for i, p in enumerate(holm(ps.tolist())) if p <= level} == rejected


def test_nothing_to_draw_from_is_refused() -> None:
    for function in (mean_interval, sign_flip_p):
        with pytest.raises(ConfigError, match="nothing to draw from"):
            function(np.empty(0), np.random.default_rng(0))
        with pytest.raises(ConfigError, match="nothing to draw from"):
            function(np.ones(3), np.random.default_rng(0), 0)
