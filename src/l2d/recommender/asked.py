"""An open run that answers: lists for histories, neighbours of an item, reasons."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from l2d.decode import Vote
from l2d.recommender.answering import Recommendation, RecommendRequest, answer, similar
from l2d.recommender.explaining import Explanation, evidence_for, explain
from l2d.recommender.opening import OpenRun
from l2d.recommender.remembering import THROUGH


class AskedRun(OpenRun):
    """The verbs that answer and change nothing."""

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
        exclude_seen: bool = False,
        minimum_entries: int = 0,
    ) -> list[Recommendation]:
        """Recommends for one history of ids or titles, oldest first; options as in `recommend_batch`."""
        request = RecommendRequest(history, k, exclude, allow)
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
        """Recommends for many histories at once.

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
        """
        if decoder is None:
            decoder = self.usual if neighbours is None and temperature is None else "vote"
        chosen = self.decoder(decoder, neighbours=neighbours, temperature=temperature)
        return answer(self, requests, chosen, exclude_seen=exclude_seen, minimum_entries=minimum_entries)

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
        examples = [self.dataset.splits[name] for name in THROUGH[self.memory.metadata["through"]]]
        row = self.catalog.find(item)
        found = explain(vote, requests, row, self.catalog, examples, with_users=with_users)
        return (
            replace(found, evidence=evidence_for(self.auto, requests, row, self.catalog)) if self.calibrated else found
        )
