"""What the tables over real prompts are made on: data sets, templates, backbones, threads."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch

import turns
from l2d import Dataset, Recommender, prepare
from l2d.backbone import Backbone
from l2d.decode import Auto, Global, Materials, Recipe, Spread
from l2d.evidence import Evidence
from l2d.interactions import split_by_time
from l2d.memory import Entries, aggregate
from l2d.prompts import COMPACT, INSTRUCT, Prompts
from l2d.ranking import Decoder
from l2d.sources.demo import demo_world

DEMO = "demo"
TEMPLATES = {"instruct": INSTRUCT, "compact": COMPACT}
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}


@dataclass(frozen=True)
class Given:
    """One combination to measure.

    Args:
        data: name of the data set.
        dataset: the same, prepared.
        shape: one of `turns.SHAPES`.
        backbone: of that shape.
        prompts: of the template.
    """

    data: str
    dataset: Dataset
    shape: str
    backbone: Backbone
    prompts: Prompts

    def described(self) -> dict[str, object]:
        """What a record says of it."""
        names = {"data": self.data, "template": self.prompts.template.name, "backbone": self.shape}
        dtype = str(self.backbone.dtype).removeprefix("torch.")
        return {**names, "parameters": turns.parameters(self.backbone), "dtype": dtype}


def arguments(documentation: str | None) -> argparse.ArgumentParser:
    """The options of `turns` and those that say what is measured."""
    parser = turns.arguments(documentation)
    split = partial(str.split, sep=",")
    parser.add_argument("--data", default="amazon-cds", help="folder below the data folder")
    parser.add_argument("--templates", type=split, default=list(TEMPLATES), help="separated by commas")
    parser.add_argument("--backbones", type=split, default=["5m", "22m"], help=f"of {', '.join(turns.SHAPES)}")
    parser.add_argument("--dtype", choices=DTYPES, default="float32", help="of the backbones")
    parser.add_argument("--run", type=Path, help="a tuned run whose backbone stands for 5m instead of random weights")
    parser.add_argument("--threads", type=int, default=0, help="0 for all cores")
    return parser


def settled(options: argparse.Namespace) -> argparse.Namespace:
    """Sets the threads, and in a smoke run the smallest of everything."""
    if options.smoke:
        options.data, options.backbones, options.run, options.threads = DEMO, ["tiny"], None, 1
    if options.threads:
        torch.set_num_threads(options.threads)
    options.threads = torch.get_num_threads()
    return options


def dataset(name: str) -> Dataset:
    """A data set of the data folder, or a small demo shop."""
    if name != DEMO:
        return prepare(turns.source(name))
    catalog, interactions = demo_world(users=60, items=80)
    return Dataset(catalog, interactions, split_by_time(interactions), {})


def random_decoders(data: Dataset, width: int) -> dict[str, Decoder]:
    """Global and auto over random thoughts, one for each training example."""
    train, items = data.splits.train, len(data.catalog)
    thoughts = np.random.default_rng(0).standard_normal((len(train), width), dtype=np.float32).astype(np.float16)
    users = train.interactions.user_ids
    entries = Entries(thoughts, train.target, train.user, train.timestamp, np.arange(len(train)), users)
    means = aggregate(entries, items)
    materials = Materials(Evidence.learn(train, items), entries, means, Spread.of(entries, means), means.vectors)
    return {"global": Global(means), "auto": Auto(materials, Recipe(half_life=60.0, newcomer=1.0))}


def every(options: argparse.Namespace) -> Iterator[Given]:
    """Each combination in turn.

    Raises:
        SystemExit: the run is of other data.
    """
    data = dataset(options.data)
    for shape in options.backbones:
        if shape == "5m" and options.run is not None:
            run = Recommender.load(options.run, verify=False)
            if run.tuned_catalog.titles != data.catalog.titles:
                raise SystemExit(f"{options.run} was not tuned on {options.data}")
            backbone = run.backbone
        else:
            backbone = turns.shaped(shape, data.catalog.titles, DTYPES[options.dtype])
        for template in options.templates:
            prompts = Prompts.compile(TEMPLATES[template], backbone.tokenizer, data.catalog)
            yield Given(options.data, data, shape, backbone, prompts)
