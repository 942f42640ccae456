"""Reference (LLMA, arXiv 2304.04487): grounding whose one greedy text is copied from known titles and verified."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from l2d.backbone import Backbone, PackProbe, probe_packing
from l2d.catalog import Catalog
from l2d.language.copying import CopyingWriter, References
from l2d.language.forward import open_forward
from l2d.language.grounding import Grounding
from l2d.language.trie import Trie
from l2d.prompts import Prompts


class Reference(Grounding):
    """`Grounding` whose text is copied and verified: the same lists from fewer passes of the model.

    Args:
        backbone: the tuned backbone.
        prompts: its compiled prompts.
        catalog: the items; must be those of the prompts.
        copied: tokens copied from each reference in one pass, at most.
        match: written tokens that must stand in the history for its continuation to be copied, where there are any
            such; fewer otherwise.
        batch_size: requests written together.
        popularity: training examples of each item: steers what is copied and, with gamma, the list; None for neither.
            Shape: (items,).
        gamma: strength of the popularity injection, as in `Grounding`.
        probe: what the backbone's opening probe found; None probes now.

    Raises:
        ConfigError: copied, match or batch_size below 1, gamma negative.
        DataError: one item's answer is the beginning of another's.
    """

    name = "reference"

    def __init__(
        self,
        backbone: Backbone,
        prompts: Prompts,
        catalog: Catalog,
        *,
        copied: int = 8,
        match: int = 3,
        batch_size: int = 8,
        popularity: NDArray[np.integer] | None = None,
        gamma: float = 0.0,
        probe: PackProbe | None = None,
    ) -> None:
        probe = probe or probe_packing(backbone, longest=min(1024, backbone.context))
        references = References(Trie.build(prompts.answer, len(catalog)), copied, match, popularity)
        writer = CopyingWriter(
            open_forward(backbone, probe), references, end=prompts.end_id, longest=prompts.longest_title
        )
        super().__init__(
            backbone,
            prompts,
            catalog,
            batch_size=batch_size,
            popularity=popularity,
            gamma=gamma,
            writer=writer,
            probe=probe,
        )
