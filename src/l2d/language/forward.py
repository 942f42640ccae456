"""Model side of the beam search: one forward pass per step, for all hypotheses of all requests together."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Sequence
from typing import NamedTuple, Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from l2d.backbone import Backbone, MaskForm, PackProbe, probe_packing
from l2d.backbone.probe import tolerance

PROMPT = -1
"""Parent of a chain that stands directly behind its request's prompt."""


class Chain(NamedTuple):
    """Tokens to read behind a hypothesis.

    Args:
        request: place of the request in `Forward.start`.
        parent: place of the parent chain among this request's chains of the step before, or `PROMPT`.
        prefix: answer tokens before these, all read already or by chains before this one.
        tokens: answer tokens to read now, at least one.
        after: place of the token that it stands behind, or `PROMPT`; `parent` is not looked at then. Counted over all
            answer tokens given for this request so far, in their order, this step's earlier chains included.
    """

    request: int
    parent: int
    prefix: NDArray[np.int32]
    tokens: NDArray[np.int32]
    after: int | None = None


class Forward(Protocol):
    """Logits along growing answers. Logits are those of the model's own forward (some families scale or cap them)."""

    def start(self, prompts: Sequence[NDArray[np.int32]]) -> torch.Tensor:
        """Forgets everything, reads the prompts. Returns the logits behind each. Shape: (prompts, vocabulary)."""
        ...

    def extend(self, chains: Sequence[Chain], waiting: Collection[int] = ()) -> torch.Tensor:
        """Reads chains, sorted by request. Returns the logits behind each token, chain by chain.

        Args:
            chains: what to read. A request without any is finished and forgotten.
            waiting: requests that are to be remembered though they read nothing now.

        Returns:
            Shape: (tokens of all chains, vocabulary).
        """
        ...


class CachedForward:
    """All hypotheses of a request in one line of the batch, with one key/value cache.

    A step appends its tokens to the line and its mask lets each see its own ancestors alone, as in a pack; position
    ids are depths. So keys and values are never copied or reordered between beams, the prompt's are held once and
    not once per beam, and a dropped hypothesis is just not looked at any more. The cache keeps everything also in
    layers with a sliding window (the library's own cache for these drops entries by place, which is wrong here where
    places are not depths): the mask applies the window by depth.
    """

    def __init__(self, backbone: Backbone, form: MaskForm) -> None:
        self.backbone = backbone
        self.form = form

    def start(self, prompts: Sequence[NDArray[np.int32]]) -> torch.Tensor:
        """See `Forward.start`."""
        lengths = np.array([len(prompt) for prompt in prompts])
        longest = int(lengths.max())
        ids = np.zeros((len(prompts), longest), dtype=np.int64)
        for line, prompt in enumerate(prompts):
            # Left padding puts every last token into the last column. It is right only because mask and position
            # ids are given explicitly; with the mask left to the model, GPT-2's states would be off by 4.
            ids[line, longest - len(prompt) :] = prompt
        depth = np.arange(longest) - (longest - lengths)[:, None]
        real = depth >= 0
        mask = np.tril(np.ones((longest, longest), dtype=bool)) & real[:, None, :]
        self._cache = self.backbone.cache()
        self._lines = list(range(len(prompts)))
        self._depth = np.zeros((len(prompts), 0), dtype=np.int64)
        self._seen = [[line] for line in real]
        self._ends = [[PROMPT] for _ in prompts]
        return self._forward(ids, np.maximum(depth, 0), mask, last_only=True)[:, -1]

    def extend(self, chains: Sequence[Chain], waiting: Collection[int] = ()) -> torch.Tensor:
        """See `Forward.extend`."""
        named = {chain.request for chain in chains} | set(waiting)
        groups: dict[int, list[Chain]] = {request: [] for request in self._lines if request in named}
        for chain in chains:
            groups[chain.request].append(chain)
        self._keep(list(groups))
        width = max(sum(len(chain.tokens) for chain in group) for group in groups.values())
        known = self._depth.shape[1]
        ids, depth = np.zeros((2, len(groups), width), dtype=np.int64)
        mask = np.zeros((len(groups), width, known + width), dtype=bool)
        real = np.zeros((len(groups), width), dtype=bool)
        for line, group in enumerate(groups.values()):
            places = _places(group, self._ends[line])
            used = _lay_out(group, places, self._seen[line], ids[line], depth[line], mask[line])
            self._ends[line] = _ends(group, len(self._seen[line]) - 1 - used)
            real[line, :used] = True
        logits = self._forward(ids, depth, mask)
        return logits[torch.from_numpy(real).to(logits.device)]

    def _keep(self, requests: list[int]) -> None:
        """Takes the lines of finished requests out of the batch."""
        if requests == self._lines:
            return
        lines = [self._lines.index(request) for request in requests]
        self._cache.batch_select_indices(torch.tensor(lines, device=self.backbone.device))
        self._lines = requests
        self._depth = self._depth[lines]
        self._seen, self._ends = ([column[line] for line in lines] for column in (self._seen, self._ends))

    def _forward(
        self, ids: NDArray[np.int64], depth: NDArray[np.int64], mask: NDArray[np.bool_], *, last_only: bool = False
    ) -> torch.Tensor:
        length = ids.shape[1]
        # A padding token sees itself: a line without any True turns into NaN in some attention kernels.
        mask[:, np.arange(length), mask.shape[2] - length + np.arange(length)] = True
        self._depth = np.concatenate([self._depth, depth], axis=1)
        device = self.backbone.device
        output = self.backbone.model(
            input_ids=torch.from_numpy(ids).to(device),
            position_ids=torch.from_numpy(depth).to(device),
            attention_mask=self._masks(mask, depth),
            past_key_values=self._cache,
            use_cache=True,
            **({"logits_to_keep": 1} if last_only else {}),
        )
        return output.logits

    def _masks(self, mask: NDArray[np.bool_], depth: NDArray[np.int64]) -> torch.Tensor | dict[str, torch.Tensor]:
        full = self._tensor(mask)
        window = self.backbone.window
        if window is None or self.form is MaskForm.FULL:
            narrow = full
        else:
            narrow = self._tensor(mask & (depth[:, :, None] - self._depth[:, None, :] < window))
        if self.form is MaskForm.MAPPING:
            return {"full_attention": full, "sliding_attention": narrow}
        return narrow if self.form is MaskForm.WINDOWED else full

    def _tensor(self, mask: NDArray[np.bool_]) -> torch.Tensor:
        tensor = torch.from_numpy(mask)[:, None].to(self.backbone.device)
        if self.backbone.attention != "eager":
            return tensor
        return torch.zeros_like(tensor, dtype=self.backbone.dtype).masked_fill(~tensor, -torch.inf)


def _places(group: Sequence[Chain], ends: Sequence[int]) -> list[int]:
    """The token that each chain stands behind, given those at which the chains of the step before ended."""
    return [
        chain.after if chain.after is not None else PROMPT if chain.parent == PROMPT else ends[chain.parent]
        for chain in group
    ]


def _ends(group: Sequence[Chain], known: int) -> list[int]:
    return (known - 1 + np.cumsum([len(chain.tokens) for chain in group])).tolist()


def _lay_out(
    group: Sequence[Chain],
    places: Sequence[int],
    seen: list[NDArray[np.bool_]],
    ids: NDArray[np.int64],
    depth: NDArray[np.int64],
    mask: NDArray[np.bool_],
) -> int:
    """Writes one request's chains into its line and what their tokens see behind `seen`; returns the places used.

    `seen` holds what the prompt's last token sees, then the same for every answer token. Shape of one: (columns then,).
    """
    known, start = mask.shape[1] - mask.shape[0], 0
    for chain, place in zip(group, places, strict=True):
        stop = start + len(chain.tokens)
        ancestors = seen[place + 1]
        ids[start:stop] = chain.tokens
        depth[start:stop] = ancestors.sum() + np.arange(stop - start)
        mask[start:stop, : len(ancestors)] = ancestors
        mask[start:stop, known + start : known + stop] |= np.tril(np.ones((stop - start, stop - start), dtype=bool))
        seen.extend(mask[start:stop])
        start = stop
    return start


class PlainForward:
    """Every sequence read whole in every step, batched with others of exactly its length: no cache, no padding.

    Slow (a search reads its prompts once per beam and step) and right for any causal model: recurrent and
    convolutional layers, whose state a cache of keys cannot hold, and whatever else the opening probe rejects.
    """

    def __init__(self, backbone: Backbone, batch_tokens: int = 4096) -> None:
        self.backbone = backbone
        self.batch_tokens = batch_tokens

    def start(self, prompts: Sequence[NDArray[np.int32]]) -> torch.Tensor:
        """See `Forward.start`."""
        self._prompts = list(prompts)
        return torch.cat(self._read(self._prompts, [1] * len(prompts)))

    def extend(self, chains: Sequence[Chain], waiting: Collection[int] = ()) -> torch.Tensor:
        """See `Forward.extend`."""
        whole = [np.concatenate([self._prompts[chain.request], chain.prefix, chain.tokens]) for chain in chains]
        return torch.cat(self._read(whole, [len(chain.tokens) for chain in chains]))

    def _read(self, sequences: list[NDArray[np.int32]], tails: list[int]) -> list[torch.Tensor]:
        """The logits behind the last `tails[i]` tokens of each sequence."""
        places: dict[int, list[int]] = defaultdict(list)
        for place, ids in enumerate(sequences):
            places[len(ids)].append(place)
        logits: list[torch.Tensor] = [torch.empty(0)] * len(sequences)
        for length, same in places.items():
            size = max(1, self.batch_tokens // length)
            for batch in (same[i : i + size] for i in range(0, len(same), size)):
                table = np.stack([sequences[place] for place in batch]).astype(np.int64)
                tokens = torch.from_numpy(table).to(self.backbone.device)
                kept = max(tails[place] for place in batch)
                found = self.backbone.model(input_ids=tokens, use_cache=False, logits_to_keep=kept).logits
                for line, place in enumerate(batch):
                    logits[place] = found[line, found.shape[1] - tails[place] :]
        return logits


def open_forward(backbone: Backbone, probe: PackProbe | None = None) -> CachedForward | PlainForward:
    """The cached forward where the backbone's mask form is known and a trial agrees with the plain one, else the plain.

    Args:
        backbone: the tuned backbone.
        probe: what the opening probe found; None probes now.
    """
    longest = min(1024, backbone.context)
    probe = probe or probe_packing(backbone, longest=longest)
    plain = PlainForward(backbone)
    if probe.form is None:
        return plain
    cached = CachedForward(backbone, probe.form)
    window = backbone.window or 0
    past = window if window < longest else 0  # a window that prompts never fill need not be right
    return cached if trial_error(backbone, cached, plain, past) <= tolerance(backbone.dtype) else plain


@torch.inference_mode()
def trial_error(backbone: Backbone, cached: Forward, plain: Forward, past: int = 0) -> float:
    """Largest difference of two forwards on two small trees, relative to the logits' scale; inf where `cached` fails.

    Args:
        backbone: whose vocabulary to draw tokens from.
        cached: the forward on trial.
        plain: the forward to compare with.
        past: tokens that one of the prompts must be longer than.
    """
    generator = np.random.default_rng(0)
    vocabulary = backbone.model.get_input_embeddings().weight.shape[0]
    sizes = (past + 9, 5, 2, 1, 3)
    *prompts, a, b, c = (generator.integers(0, vocabulary, size=size).astype(np.int32) for size in sizes)
    steps = [
        [Chain(0, PROMPT, a[:0], a), Chain(0, PROMPT, a[:0], b), Chain(1, PROMPT, a[:0], c)],
        [Chain(0, 1, b, c), Chain(0, 0, a, b)],
        # Behind the first of two tokens, and behind the second of the three just given (tokens 7 to 9 of the request).
        [Chain(0, 0, a[:1], c, after=0), Chain(0, 0, np.concatenate([a[:1], c[:2]]), a, after=8)],
    ]
    expected = torch.cat([plain.start(prompts), *(plain.extend(step) for step in steps)]).float()
    try:
        found = torch.cat([cached.start(prompts), *(cached.extend(step) for step in steps)]).float()
    except Exception:  # noqa: BLE001 - each family refuses a mask in its own way
        return float("inf")
    error = (found - expected).abs().max().item() / (expected.abs().max().item() or 1.0)
    return float("inf") if np.isnan(error) else error
