"""An open run that answers: lists for histories, neighbours of an item, reasons, a search of the catalogue."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from l2d.decode import USUAL_HALF_LIFE, Cold, Vote
from l2d.errors import ArtifactBusy
from l2d.memory import Entries
from l2d.recommender.answering import Found, Recommendation, RecommendRequest, answer, find, similar
from l2d.recommender.disclosing import PublicExplanation, disclose
from l2d.recommender.explaining import Explanation, Remembered, evidence_for, explain
from l2d.recommender.opening import OpenRun
from l2d.recommender.remembering import THROUGH


class AskedRun(OpenRun):
    """The verbs that answer and change nothing."""

    _cold: tuple[Entries, tuple[int, int, float | None], Cold] | None = None

    def recommend(
        self,
        history: Sequence[str | int],
        *,
        k: int = 10,
        decoder: str | None = None,
        neighbours: int | None = None,
        temperature: float | None = None,
        exclude: Sequence[str | int] = (),
        allow: Sequence[str | int] | None = None,
        filter: Mapping[str, Any] | None = None,
        exclude_seen: bool = False,
        minimum_entries: int = 0,
    ) -> list[Recommendation]:
        """Recommends for one history of ids or titles, oldest first; options as in `recommend_batch`."""
        request = RecommendRequest(history, k, exclude, allow, filter)
        return self.recommend_batch(
            [request], decoder=decoder, neighbours=neighbours, temperature=temperature, exclude_seen=exclude_seen,
            minimum_entries=minimum_entries,
        )[0]  # fmt: skip

    def recommend_batch(
        self,
        requests: Sequence[RecommendRequest],
        *,
        decoder: str | None = None,
        neighbours: int | None = None,
        temperature: float | None = None,
        exclude_seen: bool = False,
        minimum_entries: int = 0,
    ) -> list[list[Recommendation]]:
        """Recommends for many histories at once; an empty one is answered by `cold`, whatever the decoder.

        Args:
            requests: histories with their filters.
            decoder: one of `DECODERS`; None for auto, or vote where the run is not calibrated or a constant is given.
            neighbours: M instead of the fitted one.
            temperature: tau instead of the fitted one.
            exclude_seen: whether a history's own items are excluded.
            minimum_entries: least memory entries of a recommended item; with 0, auto may recommend by title alone.

        Returns:
            A list per request, best first, at most its k long.

        Raises:
            UnknownItem, ConfigError: a request that cannot be answered.
            ArtifactBusy: other processes write faster than can be followed.
        """

        def answered() -> list[list[Recommendation]]:
            name = decoder
            if name is None:
                name = self.usual if neighbours is None and temperature is None else "vote"
            chosen = self.decoder(name, neighbours=neighbours, temperature=temperature)
            return answer(self, requests, chosen, exclude_seen=exclude_seen, minimum_entries=minimum_entries)

        try:
            return answered()
        except ArtifactBusy:
            if not self.refresh():
                raise
        return answered()

    def refresh(self) -> bool:
        """Goes over to what another process has written, and says whether that was anything."""
        return False

    @property
    def cold(self) -> Cold:
        """What answers where the history is empty: popularity that fades as validation chose it."""
        entries, fading = self.entries, self.constants.cold
        life = USUAL_HALF_LIFE if fading is None else fading.half_life
        state = (len(entries), len(self.catalog), life)  # entries grow in place
        if self._cold is None or self._cold[0] is not entries or self._cold[1] != state:
            self._cold = (entries, state, Cold(entries, len(self.catalog), life))
        return self._cold[2]

    def is_cold(self, request: RecommendRequest) -> bool:
        """Whether a request has no history, so that popularity answers it."""
        return not len(request.history)

    def find_items(self, query: str, *, k: int = 20) -> list[Found]:
        """Searches the catalogue as one types: id, beginning, words, parts of titles, then what is spelt nearly so.

        Without case and accents; among equals the items with more memory entries come first. An empty query finds the
        most popular items.

        Raises:
            ConfigError: k below 1, or a query of more than 200 characters.
        """
        return find(self, query, k)

    def user_history(self, user_id: str | int) -> list[str | int]:
        """All item ids of a user in the prepared data, oldest first."""
        rows = self.dataset.user_history(user_id, limit=len(self.dataset.interactions))
        return [self.catalog.item_id(int(row)) for row in rows]

    def similar_items(self, item: str | int, *, k: int = 10) -> list[Recommendation]:
        """The items whose vectors are nearest to an item's, itself left out.

        Raises:
            UnknownItem: no such item.
            ConfigError: the item has no memory entry, so nothing is known of it.
        """
        return similar(self, item, k)

    def remembered(self) -> Sequence[Remembered]:
        """What gives the histories of the memory's samples: the splits that it was built of."""
        return [self.dataset.splits[name] for name in THROUGH[self.memory.metadata["through"]]]

    def explain(self, history: Sequence[str | int], item: str | int, *, with_users: bool = False) -> Explanation:
        """Says what each kind of evidence gave to an item in auto, and which memory entries carried it in a vote.

        Args:
            history: ids or titles, oldest first.
            item: the recommended one.
            with_users: name whose histories they were; leave it out wherever an end user may read it.
        """
        vote = self.decoder("vote")
        assert isinstance(vote, Vote)
        requests = self.requests([self.trimmed(self.rows(history))], think=True)
        row = self.catalog.find(item)
        found = explain(vote, requests, row, self.catalog, self.remembered(), with_users=with_users)
        return (
            replace(found, evidence=evidence_for(self.auto, requests, row, self.catalog)) if self.calibrated else found
        )

    def explain_to_user(self, history: Sequence[str | int], item: str | int) -> PublicExplanation:
        """Why an item is recommended, as its receiver may read it; see `explain_many`."""
        return self.explain_many(history, [item])[0]

    def explain_many(self, history: Sequence[str | int], items: Sequence[str | int]) -> list[PublicExplanation]:
        """Why some items are recommended for one history, as its owner may read it: all of them from one thought.

        No user id, time or whole history is told, and nothing that fewer than three people carry; see
        `PublicExplanation`.

        Args:
            history: ids or titles, oldest first; an empty one is a cold user's.
            items: the recommended ones.

        Raises:
            UnknownItem: an id or title that is not in the catalogue.
        """
        return disclose(self, self.rows(history), [self.catalog.find(item) for item in items])
