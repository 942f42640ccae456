"""The manifest of a run and the data that it counts, read together while a writer may replace them."""

from __future__ import annotations

from typing import Any

from l2d.errors import ArtifactCorrupt, ArtifactMismatch, ArtifactMissing
from l2d.interactions import Dataset
from l2d.run import Run, check_same

OTHER_FILES = "load the run with the files that it was made with"

TRIES = 5
"""How often a run is read that changes meanwhile."""


def read_data(place: Run, *, verify: bool) -> tuple[dict[str, Any], Dataset]:
    """Reads manifest and data; once more where a writer replaced them meanwhile.

    Args:
        place: the run directory.
        verify: compare every file with its checksum.

    Raises:
        ArtifactMissing: no run, or an unfinished one.
        ArtifactCorrupt: a file changed.
        ArtifactMismatch: data that are not the manifest's.
    """
    for tries in range(1, TRIES + 1):
        manifest = place.read_manifest()
        try:
            if verify:
                place.verify(manifest)
            dataset = Dataset.load(place.part("data", manifest))
            check_same("data set", dataset.fingerprint, manifest["data"], cure=OTHER_FILES)
            break
        except (ArtifactCorrupt, ArtifactMissing, ArtifactMismatch, FileNotFoundError):
            if tries == TRIES or ("moving" not in manifest and place.read_manifest() == manifest):
                raise
    return manifest, dataset
