"""SASRec against a plain numpy forward, one history at a time; its windows, its loss, its rules for unknown items."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from torch.nn import functional

from l2d.baselines import SASRec, SASRecConfig
from l2d.baselines.known import KnownItems, seen_rows
from l2d.baselines.sasrec import Network, window_loss
from l2d.baselines.windows import Window, Windows, cut
from l2d.errors import ConfigError
from l2d.interactions import Examples, Interactions, chains, examples_of
from l2d.ranking import NOTHING, Requests
from l2d.testing import check_decoder, toy_world

ITEMS, LENGTH, WIDTH, HEADS = 23, 6, 12, 3
CONFIG = SASRecConfig(width=WIDTH, layers=2, heads=HEADS, dropout=0.0)
UNKNOWN, UNSEEN = (3, 20), (20,)
"""Row 3 opens sequences and is never a target; row 20 is nowhere."""

HISTORIES = [np.array(rows, dtype=np.int32) for rows in ([4], [5, 1, 7, 7, 2], [], [3, 20, 9], [20], [*range(10)])]


def peer(seed: int = 0) -> SASRec:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        network = Network(ITEMS, LENGTH, CONFIG)
        for name, parameter in network.named_parameters():
            torch.nn.init.normal_(parameter, mean=1.0 if "norm.weight" in name else 0.0, std=0.4)
    known = KnownItems.of(np.setdiff1d(np.arange(ITEMS, dtype=np.int32), UNKNOWN), ITEMS)
    return SASRec(network, known, ~np.isin(np.arange(ITEMS), UNSEEN))


Weights = dict[str, NDArray[np.float64]]


def normed(x: NDArray[np.float64], weights: Weights, name: str) -> NDArray[np.float64]:
    centred = x - x.mean()
    return centred / np.sqrt((x**2).mean() - x.mean() ** 2 + 1e-5) * weights[f"{name}.weight"] + weights[f"{name}.bias"]


def linear(x: NDArray[np.float64], weights: Weights, name: str) -> NDArray[np.float64]:
    return weights[f"{name}.weight"] @ x + weights[f"{name}.bias"]


def gelu(x: NDArray[np.float64]) -> NDArray[np.float64]:
    return 0.5 * x * (1 + torch.erf(torch.from_numpy(x / np.sqrt(2))).numpy())


def plain_block(states: list[NDArray[np.float64]], weights: Weights, name: str) -> list[NDArray[np.float64]]:
    """One position after the other, one head after the other."""
    size = WIDTH // HEADS
    split = [
        linear(normed(x, weights, f"{name}.before_attention"), weights, f"{name}.queries_keys_values") for x in states
    ]
    out = []
    for place, state in enumerate(states):
        joined = np.zeros(WIDTH)
        for head in range(HEADS):
            part = slice(head * size, (head + 1) * size)
            query = split[place][:WIDTH][part]
            scores = np.array([query @ other[WIDTH : 2 * WIDTH][part] for other in split[: place + 1]]) / np.sqrt(size)
            share = np.exp(scores - scores.max()) / np.exp(scores - scores.max()).sum()
            joined[part] = sum(s * other[2 * WIDTH :][part] for s, other in zip(share, split[: place + 1], strict=True))
        state = state + linear(joined, weights, f"{name}.joined")
        fed = gelu(linear(normed(state, weights, f"{name}.before_feed"), weights, f"{name}.up"))
        out.append(state + linear(fed, weights, f"{name}.down"))
    return out


def plain_log_probabilities(sasrec: SASRec, history: list[int]) -> NDArray[np.float64]:
    """The paper's forward in float64 for one history without padding. Shape: (items,)."""
    weights = {name: tensor.double().numpy() for name, tensor in sasrec.network.state_dict().items()}
    rows = [ITEMS, *[row for row in history if row not in UNSEEN][-LENGTH:]]
    states = [weights["items.weight"][row] * WIDTH**0.5 + weights["places.weight"][i] for i, row in enumerate(rows)]
    for block in range(2):
        states = plain_block(states, weights, f"blocks.{block}")
    last = normed(states[-1], weights, "norm")
    scores = np.array([-np.inf if row in UNKNOWN else weights["items.weight"][row] @ last for row in range(ITEMS)])
    return scores - np.log(np.exp(scores - scores.max()).sum()) - scores.max()


def test_a_batch_equals_the_plain_forward_of_each_history() -> None:
    sasrec = peer()
    found = sasrec.item_log_probabilities(HISTORIES)
    expected = np.array([plain_log_probabilities(sasrec, history.tolist()) for history in HISTORIES])
    assert found.dtype == np.float32
    assert np.array_equal(np.isinf(found), np.isinf(expected))
    finite = np.isfinite(expected)
    assert np.abs(found[finite] - expected[finite]).max() < 2e-5 * np.abs(expected[finite]).max()
    assert np.exp(found).sum(axis=1) == pytest.approx(1.0, abs=1e-5)
    assert sasrec.item_log_probabilities([]).shape == (0, ITEMS)


def test_lists_are_the_best_known_items() -> None:
    sasrec = peer()
    ranked = sasrec.rank(Requests(HISTORIES), ITEMS)
    for line, scores, history in zip(ranked.rows, ranked.scores, HISTORIES, strict=True):
        expected = plain_log_probabilities(sasrec, history.tolist())
        listed = line[line != NOTHING]
        assert sorted(listed) == sorted(set(range(ITEMS)) - set(UNKNOWN))
        assert (np.diff(expected[listed]) < 1e-4).all()
        assert scores[: len(listed)] == pytest.approx(expected[listed], abs=1e-4)


def test_the_contract_holds_for_random_weights() -> None:
    check_decoder(peer(), Requests(HISTORIES), ITEMS, tolerance=1e-5)


def test_the_loss_is_that_of_each_target_alone() -> None:
    """Value by the plain forward; gradient by running the network on every prefix without padding."""
    sasrec = peer()
    windows = [
        Window(np.array([4, 5, 6], np.int32), True),
        Window(np.array([3, 9, 3, 1, 2, 0, 8], np.int32), True),  # row 3 is not known: no target
        Window(np.array([7, 2], np.int32), False),
    ]
    samples = [
        (window.rows[:place].tolist(), int(window.rows[place]))
        for window in windows
        for place in range(0 if window.opens else 1, len(window.rows))
        if window.rows[place] not in UNKNOWN
    ]
    assert len(samples) == 9
    found = window_loss(sasrec, windows)
    expected = -np.mean([plain_log_probabilities(sasrec, history)[target] for history, target in samples])
    assert found.item() == pytest.approx(expected, rel=1e-5)
    found.backward()
    slopes = {name: parameter.grad for name, parameter in sasrec.network.named_parameters()}
    sasrec.network.zero_grad(set_to_none=True)
    for history, target in samples:
        states = sasrec.network(torch.tensor([[ITEMS, *history]]))[0, -1:]
        column = torch.tensor([int(sasrec.known.columns[target])])
        (functional.cross_entropy(sasrec.item_scores(states), column) / len(samples)).backward()
    for name, parameter in sasrec.network.named_parameters():
        slope = slopes[name]
        assert slope is not None
        assert parameter.grad is not None
        assert (slope - parameter.grad).abs().max() < 1e-5 * max(1.0, parameter.grad.abs().max().item()), name


def test_a_batch_without_a_known_target_costs_nothing() -> None:
    sasrec = peer()
    loss = window_loss(sasrec, [Window(np.array([3], np.int32), True)])
    loss.backward()
    assert loss.item() == 0


def log(lengths: list[int]) -> Examples:
    rows = np.concatenate([np.arange(size) + 10 * user for user, size in enumerate(lengths)]).astype(np.int32)
    users = np.repeat(np.arange(len(lengths), dtype=np.int32), lengths)
    names = tuple(f"user {user}" for user in range(len(lengths)))
    return examples_of(Interactions(names, users, rows, np.arange(len(rows), dtype=np.int64)), 5)


@settings(max_examples=50, deadline=None)
@given(st.lists(st.integers(2, 30), min_size=1, max_size=8), st.integers(1, 6), st.integers(1, 5), st.integers(0, 9))
def test_every_row_of_every_sequence_is_a_target_once_an_epoch(
    lengths: list[int], length: int, batch: int, seed: int
) -> None:
    windows = Windows(log(lengths), length, batch, seed)
    sequences = [chain.tolist() for chain in chains(log(lengths))]
    for epoch in range(2):
        batches = list(windows.batches(epoch))
        assert len(batches) == windows.steps
        assert all(batches), "no batch is empty"
        seen = Counter()
        for window in (window for batch in batches for window in batch):
            stretch = window.rows.tolist()
            assert 1 <= len(stretch) <= length + 1
            assert any(
                stretch == rows[i : i + len(stretch)] and window.opens == (i == 0)
                for rows in sequences
                for i in range(len(rows))
            )
            seen.update(stretch if window.opens else stretch[1:])
        assert seen == Counter(row for rows in sequences for row in rows)
        again = [w for batch in Windows(log(lengths), length, batch, seed).batches(epoch) for w in batch]
        flat = [w for batch in batches for w in batch]
        assert all(np.array_equal(one.rows, other.rows) for one, other in zip(flat, again, strict=True))


def test_windows_by_hand() -> None:
    rows = np.arange(8, dtype=np.int32)
    parts = [(window.rows.tolist(), window.opens) for window in cut(rows, 2, 3)]
    assert parts == [([0, 1, 2], True), ([2, 3, 4, 5], False), ([5, 6, 7], False)]
    assert [window.rows.tolist() for window in cut(rows, 9, 9)] == [rows.tolist()]
    assert [tuple(window) for window in cut(rows[:1], 3, 3)] == [(rows[:1], True)]


def test_the_toy_world_is_learnt() -> None:
    world = toy_world()
    splits = world.dataset.splits
    config = SASRecConfig(width=32, dropout=0.0, epochs=30, learning_rate=5e-3, batch=12, patience=30)
    sasrec = SASRec.fit(splits.train, splits.valid, world.items, config)
    assert sasrec.length == splits.train.history_length.max()
    assert sasrec.scores[-1] > 0.99
    check_decoder(sasrec, Requests(splits.test.histories()), world.items, targets=world.targets, tolerance=1e-5)
    untrained = world.items - 1
    assert not sasrec.seen[untrained]
    assert untrained not in sasrec.known.rows
    assert untrained not in sasrec.rank(Requests(splits.test.histories()), world.items).rows


def test_what_was_never_trained_on_changes_no_answer() -> None:
    sasrec = peer()
    with_it, without = ([np.array(rows, dtype=np.int32)] for rows in ([4, 20, 5, 20], [4, 5]))
    assert np.array_equal(sasrec.item_log_probabilities(with_it), sasrec.item_log_probabilities(without))
    examples = log([4, 6]).take(np.array([0, 1, 4]))
    seen = {row for history, target in examples for row in [*history.tolist(), target]}
    assert set(np.flatnonzero(seen_rows(examples, 40))) == seen


def test_costs_are_booked() -> None:
    sasrec = peer()
    sasrec.rank(Requests(HISTORIES), 3)
    assert sasrec.meter.model_calls == 1
    assert sasrec.meter.seconds["decode"] == 0
    assert all(sasrec.meter.seconds[name] > 0 for name in ("tokenise", "prefill", "search"))


def test_impossible_options_are_refused() -> None:
    train = log([4, 5])
    with pytest.raises(ConfigError, match="heads must divide the width"):
        SASRec.fit(train, train, 40, SASRecConfig(width=10, heads=3))
    with pytest.raises(ConfigError, match="rows below 5"):
        KnownItems.of(np.array([1, 5], dtype=np.int32), 5)
    with pytest.raises(ConfigError, match="no training example"):
        KnownItems.of(np.array([], dtype=np.int32), 5)
    with pytest.raises(ConfigError, match="k is too small"):
        peer().rank(Requests(HISTORIES), 0)
