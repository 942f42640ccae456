"""The comparison itself: every contestant asked about the same users, timed in turn, tested against the first."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from l2d.catalog import Catalog
from l2d.compare.asking import BLOCK, Service, ask, rank_in_blocks, timed_histories
from l2d.compare.comparison import Comparison, Row
from l2d.compare.contestants import Contestant, check_names
from l2d.compare.holding import held_mib
from l2d.compare.plan import Plan, Users
from l2d.compare.quality import Judge, Quality, against_first, judge_of
from l2d.compare.timing import Speed, latencies, throughput
from l2d.interactions import Examples
from l2d.prompts import Prompts
from l2d.ranking import Rankings, Requests, Rows
from l2d.thoughts import Thinker

LANGUAGE_BLOCK = 64
"""Requests between two signs of life of a language decoder, which needs seconds for as many."""

Progress = Callable[[str, int, int], None]
"""Called with (what is going on, done, total)."""


def compare(
    contestants: Sequence[Contestant],
    examples: Examples,
    catalog: Catalog,
    counts: NDArray[np.integer[Any]],
    prompts: Prompts,
    thinker: Thinker,
    plan: Plan,
    *,
    progress: Progress = lambda *_: None,
    notice: Callable[[str], None] = lambda _: None,
) -> Comparison:
    """Measures decoders side by side: quality, latency, throughput, model calls, memory, and tests against the first.

    Every row is judged over the whole catalogue, less the history's own items where the plan excludes them. Language
    rows search, so they are judged on a seeded sample of users; the others on all and, to stand beside the language
    rows, on the sample as well. A row is tested against the first one on the users that both were asked about. Single
    requests are timed in turn, from the history to the list. All that comes after quality, so that what a decoder
    builds on first use is there when it is timed and measured.

    Args:
        contestants: the rows, in the order in which they are shown.
        examples: histories and what came next; no memory may hold these targets.
        catalog: the items.
        counts: training examples per item. Shape: (items,).
        prompts: history to prompt, for contestants that need thoughts.
        thinker: prompts to thoughts.
        plan: who is asked, how long lists are, what is timed.
        progress: called with (what, done, total).
        notice: called with what a reader should know.

    Raises:
        ConfigError: nobody takes part, two have one name, or there is nothing to judge.
    """
    check_names(contestants)
    users = Users.draw(examples, plan)
    think = any(contestant.needs_thoughts for contestant in contestants)
    requests = ask(
        examples, prompts, thinker, think=think, exclude_seen=plan.exclude_seen, progress=partial(progress, "thinking")
    )
    judge = judge_of(examples, catalog, counts, plan.seed)
    judged = {
        one.name: _judge(one, requests, users, plan.length(one, len(catalog)), judge, plan.seed, progress)
        for one in contestants
    }
    versus = against_first({name: whole for name, (whole, _) in judged.items()}, plan.seed)
    services = {one.name: Service(one.decoder, prompts, thinker, exclude_seen=plan.exclude_seen) for one in contestants}
    histories = timed_histories(examples, plan.seed, plan.timed)
    speed = _time(services, histories, plan, progress) if histories else {}
    rows = {
        one.name: Row(one.kind, *judged[one.name], versus[one.name], speed.get(one.name), _held(one, thinker))
        for one in contestants
    }
    if any(row.kind == "language" and row.quality.users < len(examples) for row in rows.values()):
        notice(f"language decoders: {len(users.sample)} of {len(examples)} {plan.split} examples, seed {plan.seed}")
    most = max(row.quality.users for row in rows.values())
    return Comparison(
        plan.split, most, len(users.sample), plan.exclude_seen, plan.seed, plan.timed_length, plan.searched_length, rows
    )


def _judge(
    contestant: Contestant, requests: Requests, users: Users, k: int, judge: Judge, seed: int, progress: Progress
) -> tuple[Quality, Quality | None]:
    """Quality on the contestant's own users, and on the sample if that is another set."""
    places = users.of(contestant)
    block = LANGUAGE_BLOCK if contestant.kind == "language" else BLOCK
    mine = requests.take(places.tolist())
    lists = [rank_in_blocks(one, mine, k, partial(progress, contestant.name), block) for one in contestant.decoders]
    whole = Quality(places, [judge(rankings, places) for rankings in lists], seed)
    if len(places) == len(users.sample):
        return whole, None
    parts = [Rankings(rankings.rows[users.sample], rankings.scores[users.sample]) for rankings in lists]
    return whole, Quality(users.sample, [judge(rankings, users.sample) for rankings in parts], seed)


def _time(
    services: Mapping[str, Service], histories: Sequence[Rows], plan: Plan, progress: Progress
) -> dict[str, Speed]:
    single = latencies(services, histories, plan.timed_length, partial(progress, "timing"))
    found = {}
    for place, (name, service) in enumerate(services.items()):
        rate = throughput(service, histories, plan.timed_length, 1000 / single[name].mean, seconds=plan.seconds)
        found[name] = Speed(single[name], rate)
        progress("batches", place + 1, len(services))
    return found


def _held(contestant: Contestant, thinker: Thinker) -> float:
    """MiB of the decoder, and of the backbone that thinks for it."""
    return held_mib(contestant.decoder, *([thinker] if contestant.decoder.needs_thoughts else []))
