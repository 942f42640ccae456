"""The search against brute force in double precision: every type of product, filters, the bound, the index."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest
import torch

from l2d.errors import InputError, InternalError
from l2d.memory import Filter, Points
from l2d.memory.nearest import Indexed, Near, pays, products
from l2d.memory.nearest.products import BRIEF, FULL, HALF, Factors, Kind, _shorten, fastest
from l2d.memory.nearest.scan import Halves

KINDS = (HALF, BRIEF, FULL)
N, WIDTH = 700, 24


def world(dtype: type, offset: float = 0.3, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    vectors = (rng.standard_normal((N, WIDTH)) + offset).astype(dtype)
    vectors[40:60] = vectors[:20]  # ties
    thoughts = (rng.standard_normal((6, WIDTH)) + offset).astype(np.float32)
    thoughts[1] = vectors[3]
    return vectors, thoughts


def brute(vectors: np.ndarray, thought: np.ndarray, count: int, allowed: np.ndarray) -> tuple[list[int], np.ndarray]:
    away = ((vectors.astype(np.float64) - thought.astype(np.float64)) ** 2).sum(axis=1)
    places = np.flatnonzero(allowed)
    order = places[np.lexsort((places, away[places]))][:count]
    return order.tolist(), away[order]


def of(near: Near, request: int) -> Near:
    return near.part(slice(request, request + 1))


def filters() -> tuple[list[Filter], np.ndarray]:
    """One of each sort, and what they allow. Shape: (requests, points)."""
    rng = np.random.default_rng(7)
    many, few = np.sort(rng.permutation(N)[:400]), np.sort(rng.permutation(N)[:9])
    barred = rng.integers(0, N, 150)  # with repeats
    made = [Filter(), Filter(barred=barred), Filter(only=many), Filter(only=few)]
    made += [Filter(only=np.empty(0, np.int64)), Filter(barred=np.arange(N))]
    allowed = np.ones((6, N), bool)
    allowed[1, barred] = allowed[2:] = False
    allowed[2, many] = allowed[3, few] = True
    return made, allowed


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
@pytest.mark.parametrize(("dtype", "offset"), [(np.float16, 0.3), (np.float16, 40.0), (np.float32, 0.3)])
@pytest.mark.parametrize("count", [1, 25, 5000])
def test_filtered_neighbours_are_those_of_brute_force(
    monkeypatch: pytest.MonkeyPatch, kind: Kind, dtype: type, offset: float, count: int
) -> None:
    monkeypatch.setattr("l2d.memory.nearest.scan.fastest", lambda _: kind)
    monkeypatch.setattr("l2d.memory.nearest.scan.PRODUCTS", 512)  # many blocks
    vectors, thoughts = world(dtype, offset)
    made, allowed = filters()
    known = np.random.default_rng(8).random(N) < 0.8
    for mask in (None, known):
        near = Points(vectors).near(thoughts, count, made, mask)
        hidden = Points(vectors, mask).near(thoughts, count, made)
        for request in range(6):
            may = allowed[request] if mask is None else allowed[request] & mask
            places, squared = brute(vectors, thoughts[request], count, may)
            assert of(near, request).first(count).index.tolist() == places
            assert of(hidden, request).first(count).index.tolist() == places
            np.testing.assert_allclose(of(near, request).first(count).squared, squared, rtol=1e-12)


def test_places_that_tie_with_the_last_one_are_there() -> None:
    vectors = np.zeros((50, 4), np.float16)
    near = Points(vectors).near(np.ones((2, 4), np.float32), 3)
    assert np.diff(near.starts).tolist() == [50, 50]
    assert near.first(3).index.tolist() == [0, 1, 2, 0, 1, 2]


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
@pytest.mark.parametrize("scale", [1e-5, 1e-3, 1.0, 300.0])
def test_products_err_no_more_than_they_say(kind: Kind, scale: float) -> None:
    rng = np.random.default_rng(3)
    points = (rng.standard_normal((900, 200)) * scale).astype(np.float16)
    wanted = rng.standard_normal((5, 200)) * np.array([[1e-3], [1.0], [2.0**-130], [2.0**45], [0.0]])
    norms = np.linalg.norm(points.astype(np.float64), axis=1)
    factors = Factors(kind, wanted, float(norms.max()))
    missed = np.abs(factors(points) - wanted @ points.astype(np.float64).T)
    bound = factors.error[:, None] * norms + factors.least[:, None]
    assert (missed <= bound).all()
    assert kind is FULL or missed[1].max() > bound[1].max() / 100, "the bound is of the error's own size"


def test_every_float16_number_is_shortened_within_its_bound() -> None:
    every = np.arange(1 << 16, dtype=np.uint16).view(np.float16)
    every = every[np.isfinite(every)]
    short = torch.empty((1, len(every)), dtype=torch.bfloat16)
    before = every.copy()
    _shorten(torch.from_numpy(every[None]), short)
    assert np.array_equal(every.view(np.uint16), before.view(np.uint16))
    exact, found = every.astype(np.float64), short.double().numpy()[0] * BRIEF.lift
    missed, normal = np.abs(found - exact), np.abs(exact) >= BRIEF.smallest
    assert (missed[normal] <= BRIEF.points * np.abs(exact[normal])).all()
    assert (np.abs(found[normal]) >= 2.0**-126 * BRIEF.lift).all()
    assert (np.maximum(missed, np.abs(exact))[~normal] <= BRIEF.smallest).all(), "even where units take it for zero"
    assert np.array_equal(np.signbit(found), np.signbit(exact))


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
@pytest.mark.parametrize(
    ("dtype", "scale"),
    [(np.float16, 2**-22), (np.float16, 2**-14), (np.float16, 2**12), (np.float32, 2**45), (np.float32, 2**-60)],
)
def test_the_ends_of_the_range(monkeypatch: pytest.MonkeyPatch, kind: Kind, dtype: type, scale: float) -> None:
    monkeypatch.setattr("l2d.memory.nearest.scan.fastest", lambda _: kind)
    monkeypatch.setattr("l2d.memory.nearest.scan.PRODUCTS", 512)
    vectors, thoughts = world(np.float32)
    vectors, thoughts = (vectors * scale).astype(dtype), thoughts * np.float32(scale)
    thoughts[4:] *= np.array([[2.0**-20], [4.0]], dtype=np.float32)
    near = Points(vectors).near(thoughts, 25)
    for request, thought in enumerate(thoughts):
        places, squared = brute(vectors, thought, 25, np.ones(N, bool))
        assert of(near, request).first(25).index.tolist() == places
        np.testing.assert_allclose(of(near, request).first(25).squared, squared, rtol=1e-12)


def test_float16_vectors_are_not_copied_unless_they_lie_far_out() -> None:
    near, _ = world(np.float16, 0.3)
    far, _ = world(np.float16, 40.0)
    assert Halves(near)._values is near
    assert Halves(far)._values is not far


@pytest.fixture
def unprobed() -> Iterator[None]:
    products._probed.cache_clear()
    yield
    products._probed.cache_clear()


@pytest.mark.usefixtures("unprobed")
def test_the_machine_chooses_among_the_kinds() -> None:
    assert fastest(1) in KINDS
    assert fastest(32) in (BRIEF, FULL)


@pytest.mark.usefixtures("unprobed")
def test_a_kind_that_errs_more_than_it_says_is_not_chosen(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(products, "BRIEF", replace(BRIEF, points=0.0, products=0.0))
    assert fastest(32) is FULL


def test_no_points_and_no_requests() -> None:
    empty = Points(np.empty((0, 3), np.float16)).near(np.zeros((2, 3), np.float32), 4)
    assert empty.starts.tolist() == [0, 0, 0]
    assert len(Points(np.ones((4, 3), np.float16)).near(np.empty((0, 3), np.float32), 4)) == 0


@pytest.mark.skipif(importlib.util.find_spec("faiss") is None, reason="faiss is not installed")
def test_an_index_finds_what_it_says_and_its_distances_are_exact() -> None:
    rng = np.random.default_rng(5)
    vectors = (rng.standard_normal((40, 16))[rng.integers(0, 40, 6000)] * 2 + rng.standard_normal((6000, 16))).astype(
        np.float16
    )
    thoughts = (vectors[::500] + 0.3).astype(np.float32)
    index, exact = Indexed(vectors), Points(vectors)
    assert index.recall >= 0.98 and 1 <= index.probes < index._index.nlist
    allow = np.sort(rng.permutation(6000)[:3000])
    made = [Filter(), Filter(barred=np.arange(0, 6000, 2)), Filter(only=allow), Filter(only=np.arange(5))] * 3
    known = np.arange(6000) % 5 > 0
    for narrowed, mask in (([], None), (made, None), (made, known)):
        found, true = (points.near(thoughts, 20, narrowed, mask).first(20) for points in (index, exact))
        pairs = [set(zip(near.request.tolist(), near.index.tolist(), strict=True)) for near in (found, true)]
        assert len(pairs[0] & pairs[1]) >= 0.9 * len(pairs[1])
        away = ((vectors[found.index].astype(np.float64) - thoughts[found.request]) ** 2).sum(axis=1)
        np.testing.assert_allclose(found.squared, away, rtol=1e-12)
        if narrowed:
            assert not (found.index[found.request == 1] % 2 == 0).any()
            assert np.isin(found.index[found.request == 2], allow).all()
        assert mask is None or mask[found.index].all()


def test_an_index_is_for_many_points_and_where_faiss_is(monkeypatch: pytest.MonkeyPatch) -> None:
    assert not pays(999_999)
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
    assert not pays(10_000_000)
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: object())
    assert pays(1_000_000)


@pytest.mark.skipif(importlib.util.find_spec("faiss") is None, reason="faiss is not installed")
def test_an_index_falls_back_to_all_points_where_its_lists_hold_too_few() -> None:
    rng = np.random.default_rng(7)
    centre = np.repeat(rng.standard_normal((20, 16)) * 9, 200, axis=0)
    vectors = (centre + rng.standard_normal(centre.shape)).astype(np.float16)
    index, exact = Indexed(vectors), Points(vectors)
    thoughts = vectors[[5, 210]].astype(np.float32)
    assert index.probes < index._index.nlist
    elsewhere = [Filter(only=np.arange(3000, 3400)), Filter(barred=np.arange(3800))]
    for count, filters in ((20, elsewhere), (3000, []), (10_000_000, [])):
        found, true = (points.near(thoughts, count, filters).first(count) for points in (index, exact))
        assert found.starts.tolist() == true.starts.tolist() and len(found.index)
        if filters:
            assert found.index.tolist() == true.index.tolist()


@pytest.mark.parametrize("dtype", [np.float16, np.float32])
@pytest.mark.parametrize("requests", [1, 32])
@pytest.mark.usefixtures("unprobed")
def test_torchs_surroundings_do_not_matter(dtype: type, requests: int) -> None:
    rng = np.random.default_rng(11)
    vectors = rng.standard_normal((500, 24)).astype(dtype)
    thoughts = rng.standard_normal((requests, 24)).astype(np.float32)
    expected = Points(vectors).near(thoughts, 7)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = Points(vectors[::-1][::-1]).near(thoughts, 7)
    assert found.index.tolist() == expected.index.tolist()
    turned = Points(vectors[::-1]).near(thoughts, 7)
    assert np.array_equal(np.sort(turned.squared), np.sort(expected.squared))


def test_what_single_precision_cannot_square_is_refused() -> None:
    with pytest.raises(InputError, match="too large"):
        Points(np.full((3, 4), 1e19, np.float32))
    with pytest.raises(InputError, match="too large"):
        Points(np.ones((3, 4), np.float16)).near(np.full((1, 4), 1e30, np.float32), 2)


def test_a_filter_bars_or_names_points_but_not_both() -> None:
    with pytest.raises(InternalError):
        Filter(barred=np.array([3]), only=np.array([7, 3]))
