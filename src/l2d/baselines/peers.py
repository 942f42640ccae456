"""Where trained peers are kept: weights beside a record of what they were made from, loaded while that is the same.

A peer is a cache, so one that was made from other data, another backbone or other options is trained again and
replaced. A damaged one is refused: its record says that it is the right one, and its bytes are not.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from pydantic import BaseModel
from safetensors.torch import load_file, save_file

from l2d.artifacts import atomic_file, read_json, sha256_file, sha256_text, verify_checksums, write_json
from l2d.errors import ArtifactCorrupt, ArtifactMissing

FORMAT = 1
PEER, CHECKPOINT = "peer", "checkpoint"

Tensors = Mapping[str, torch.Tensor]


@dataclass(frozen=True)
class Trained:
    """What training leaves.

    Args:
        weights: of the epoch that was best on validation, by name.
        scores: validation NDCG@10 after each epoch.
    """

    weights: dict[str, torch.Tensor]
    scores: list[float]


@dataclass(frozen=True)
class Shelf:
    """Keeps tensors in a folder, each set with a record that is written last and makes it count.

    The file of a set is named by its digest: replacing a set never touches the one that the record still names, so a
    kill at any moment leaves either the old set or the new one.

    Args:
        folder: where.
        made_from: all that decides the tensors, as JSON values. Sets made from anything else are not found.
    """

    folder: Path
    made_from: dict[str, Any]

    def put(self, name: str, tensors: Tensors, scores: list[float]) -> None:
        """Writes or replaces a set."""
        waiting = self.folder / f"{name}.safetensors"
        with atomic_file(waiting) as temporary:
            save_file({key: tensor.detach().cpu().contiguous() for key, tensor in tensors.items()}, temporary)
        digest = sha256_file(waiting)
        file = waiting.replace(self.folder / f"{name}-{digest[:12]}.safetensors")
        record = {"format": FORMAT, "made_from": self.made_from, "scores": scores, "files": {file.name: digest}}
        write_json(self._record(name), {**record, "checksum": _checksum(record)})
        self._clear(name, keep=file.name)

    def find(self, name: str) -> Trained | None:
        """The set of that name; None where there is none, or one that was made from something else.

        Raises:
            ArtifactCorrupt: the record or the tensors changed since they were written, or the tensors are gone.
        """
        if not self._record(name).is_file():
            return None
        cure = f"delete {self.folder}: it is trained again"
        record = read_json(self._record(name))
        if not isinstance(record, dict) or record.pop("checksum", None) != _checksum(record):
            raise ArtifactCorrupt("a trained peer's record was changed", file=self._record(name), cure=cure)
        if record["format"] != FORMAT or record["made_from"] != self.made_from:
            return None
        try:
            verify_checksums(self.folder, record["files"])
        except (ArtifactCorrupt, ArtifactMissing) as error:
            raise ArtifactCorrupt("a trained peer's weights were changed", file=error.what, cure=cure) from error
        (file,) = record["files"]
        return Trained(load_file(self.folder / file), record["scores"])

    def drop(self, name: str) -> None:
        """Removes a set, its record first."""
        self._record(name).unlink(missing_ok=True)
        self._clear(name)

    def _record(self, name: str) -> Path:
        return self.folder / f"{name}.json"

    def _clear(self, name: str, keep: str = "") -> None:
        for file in self.folder.glob(f"{name}-*.safetensors"):
            if file.name != keep:
                file.unlink()


def open_peer(
    folder: Path | None,
    identity: Mapping[str, str],
    config: BaseModel,
    train: Callable[[Shelf | None], Trained],
) -> Trained:
    """Loads a peer that is complete and current, or trains it, going on from its checkpoint.

    Args:
        folder: where it is kept, `RUN/peers/NAME`; None trains and keeps nothing.
        identity: fingerprints of all that its weights depend on beside the options.
        config: the options, seed included.
        train: called with the shelf for checkpoints.

    Raises:
        ArtifactCorrupt: what is kept there is damaged.
    """
    if folder is None:
        return train(None)
    shelf = Shelf(folder, {"identity": dict(identity), "config": config.model_dump(mode="json")})
    found = shelf.find(PEER)
    if found is not None:
        return found
    trained = train(shelf)
    shelf.put(PEER, trained.weights, trained.scores)
    shelf.drop(CHECKPOINT)
    return trained


def _checksum(record: Mapping[str, Any]) -> str:
    return sha256_text(json.dumps(record, sort_keys=True))
