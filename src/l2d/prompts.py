"""History -> prompt token ids, item -> answer token ids. A title has the same ids wherever it stands.

A prompt is a list of segments (opening, titles with separators, suffix). Each is tokenised alone and the ids are
joined: tokenising the joined text instead merges tokens across the seams, and then a prompt is no longer a prefix of
prompt + answer (measured: for 99.7 % of titles after a trailing blank).
"""

from __future__ import annotations

import tomllib
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from l2d.artifacts import read_json, sha256_text, write_json
from l2d.catalog import Catalog
from l2d.errors import ArtifactMismatch, ConfigError, DataError

TokenIds = NDArray[np.int32]

INSTRUCTION = (
    "Here are the titles that one customer chose, the oldest first. "
    "Work out this customer's taste and write the one title that comes next.\nChosen so far:"
)


class Tokenizer(Protocol):
    """What prompts need of a tokenizer."""

    @property
    def fingerprint(self) -> str:
        """Digest of all that decides ids."""
        ...

    @property
    def bos(self) -> str:
        """Text of the first token."""
        ...

    @property
    def eos(self) -> str:
        """Text of the end token."""
        ...

    def encode(self, texts: Sequence[str], *, special: bool) -> list[list[int]]:
        """Ids of each text alone, nothing added. `special` says whether special tokens in the text are meant."""
        ...

    def render_chat(self, message: str) -> str | None:
        """The text of a chat with this user message, ready for the answer; None where there is no chat template."""
        ...


@dataclass(frozen=True)
class Template:
    """The text around a history.

    Args:
        name: `compact`, `instruct`, or the file it was read from.
        opening: text before the first title; `{bos}` stands for the tokenizer's first token.
        item: one title, in the history and in the answer alike; holds `{title}`. A blank in front belongs here.
        separator: text between two titles.
        suffix: text after the last title; the thought is read at its last token, or at the last title's without one.
        end: what ends an answer, exactly one token; `{eos}` stands for the tokenizer's last token.
        chat: whether the tokenizer's chat template is put around the prompt.
    """

    name: str
    opening: str
    item: str = " {title}"
    separator: str = "\n"
    suffix: str = "\n"
    end: str = "{eos}"
    chat: bool = False

    def __post_init__(self) -> None:
        if self.item.count("{title}") != 1:
            raise ConfigError(
                "the template's item needs one {title}", got=repr(self.item), cure="write it as ' {title}'"
            )

    @classmethod
    def read(cls, path: Path) -> Template:
        """Reads a TOML file with the key `prompt`, which holds `{history}`, and optionally the fields above.

        Raises:
            ConfigError: not TOML, no `{history}`, or an unknown key.
        """
        try:
            fields = tomllib.loads(path.read_text(encoding="utf-8"))
        except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
            raise ConfigError(
                "cannot read the template", file=path, got=error, cure="give a TOML file with a `prompt`"
            ) from error
        prompt = fields.pop("prompt", "")
        if not isinstance(prompt, str) or prompt.count("{history}") != 1:
            raise ConfigError(
                "the template's prompt must hold {history} once",
                file=path,
                cure='write prompt = "Bought so far:{history}\\nNext:"',
            )
        unknown = set(fields) - {"item", "separator", "end", "chat"}
        if unknown:
            raise ConfigError(
                "unknown template key", file=path, got=sorted(unknown), expected="prompt, item, separator, end, chat"
            )
        for key, value in fields.items():
            expected = bool if key == "chat" else str
            if not isinstance(value, expected):
                raise ConfigError(
                    f"template key {key} has the wrong type", file=path, got=value, expected=expected.__name__
                )
        opening, suffix = prompt.split("{history}")
        return cls(name=path.name, opening=opening, suffix=suffix, **fields)


COMPACT = Template(name="compact", opening="{bos}", end="\n")
"""Titles and line ends only. An answer ends with the separator, so an answer's path is the next prompt's path."""

INSTRUCT = Template(name="instruct", opening="{bos}" + INSTRUCTION, separator=";", suffix="\nNext:", chat=False)
"""Our wording of the instruction that is usual in generative recommendation."""


def resolve_template(name: str, tokenizer: Tokenizer) -> Template:
    """`compact`, `instruct` (with a chat template where the tokenizer has one) or a TOML file."""
    if name == "compact":
        return COMPACT
    if name == "instruct":
        return Template(**{**asdict(INSTRUCT), "chat": tokenizer.render_chat("") is not None})
    if not Path(name).is_file():
        raise ConfigError("unknown template", got=repr(name), expected="compact, instruct or a TOML file")
    return Template.read(Path(name))


HISTORY_MARK = "\N{LEFT CEILING}history\N{RIGHT CEILING}"


def _segments(template: Template, tokenizer: Tokenizer) -> dict[str, list[int]]:
    opening, suffix = template.opening, template.suffix
    if template.chat:
        rendered = tokenizer.render_chat(opening.replace("{bos}", "") + HISTORY_MARK + suffix)
        if rendered is None or rendered.count(HISTORY_MARK) != 1:
            raise ConfigError("this tokenizer has no usable chat template", cure="set chat = false in the template")
        opening, suffix = rendered.split(HISTORY_MARK)
    texts = {"opening": opening, "separator": template.separator, "suffix": suffix, "end": template.end}
    filled = [text.replace("{bos}", tokenizer.bos).replace("{eos}", tokenizer.eos) for text in texts.values()]
    return dict(zip(texts, tokenizer.encode(filled, special=True), strict=True))


def _title_ids(
    template: Template, tokenizer: Tokenizer, titles: Sequence[str], most: int
) -> tuple[TokenIds, NDArray[np.int64]]:
    """Ids of all titles, each cut to `most`, joined; and where each begins and the last one ends."""
    encoded = tokenizer.encode([template.item.replace("{title}", title) for title in titles], special=False)
    for row, ids in enumerate(encoded):
        if not ids:
            raise DataError("a title has no tokens", got=repr(titles[row]), cure="rename or drop the item")
    cut = [ids[:most] for ids in encoded]
    offsets = np.concatenate([[0], np.cumsum([len(ids) for ids in cut])]).astype(np.int64)
    return np.fromiter((token for ids in cut for token in ids), dtype=np.int32, count=int(offsets[-1])), offsets


@dataclass(frozen=True)
class Prompts:
    """A template compiled against a tokenizer and a catalogue. Build it with `Prompts.compile`.

    Args:
        template: the text it was made from.
        opening, separator, suffix, end: the segments' ids.
        title_ids: the ids of all items' titles, joined. Shape: (tokens,).
        title_offsets: where each item's ids begin and the last one's end. Shape: (items + 1,).
        max_tokens: most tokens of prompt + answer.
        max_title_tokens: titles are cut to this many tokens.
        tokenizer_fingerprint: digest of the tokenizer's files.
    """

    template: Template
    opening: TokenIds
    separator: TokenIds
    suffix: TokenIds
    end: TokenIds
    title_ids: TokenIds
    title_offsets: NDArray[np.int64]
    max_tokens: int
    max_title_tokens: int
    tokenizer_fingerprint: str

    @classmethod
    def compile(
        cls,
        template: Template,
        tokenizer: Tokenizer,
        catalog: Catalog,
        *,
        max_tokens: int = 1024,
        max_title_tokens: int = 48,
    ) -> Prompts:
        """Tokenises the template's segments and every title.

        Raises:
            ConfigError: the end is not one token, there is nothing to read a thought at for an empty history, or no
                room for even one title.
            DataError: a title has no tokens.
        """
        parts = {name: np.array(ids, dtype=np.int32) for name, ids in _segments(template, tokenizer).items()}
        if len(parts["end"]) != 1:
            raise ConfigError(
                "an answer must end with one token",
                got=f"{template.end!r} -> {parts['end'].tolist()}",
                cure='set end = "{eos}" in a template file',
            )
        if len(parts["opening"]) == 0:
            raise ConfigError("the template's opening has no token", cure="begin the prompt with {bos} or with words")
        flat, offsets = _title_ids(template, tokenizer, catalog.titles, max_title_tokens)
        compiled = cls(
            template,
            **parts,
            title_ids=flat,
            title_offsets=offsets,
            max_tokens=max_tokens,
            max_title_tokens=max_title_tokens,
            tokenizer_fingerprint=tokenizer.fingerprint,
        )
        if compiled.history_budget < compiled.longest_title + len(compiled.separator):
            raise ConfigError(
                "no room for one title beside the template",
                got=f"{max_tokens} tokens",
                cure="shorten the template, lower --max-title-tokens or use a model with a longer context",
            )
        return compiled

    def extended(self, tokenizer: Tokenizer, titles: Sequence[str]) -> Prompts:
        """These prompts with more titles behind their own.

        New titles are cut to the longest old one, so that every old history keeps its prompt.

        Raises:
            DataError: a title has no tokens.
        """
        flat, offsets = _title_ids(self.template, tokenizer, titles, self.longest_title)
        return replace(
            self,
            title_ids=np.concatenate([self.title_ids, flat]),
            title_offsets=np.concatenate([self.title_offsets, self.title_offsets[-1] + offsets[1:]]),
        )

    @cached_property
    def longest_title(self) -> int:
        """Tokens of the longest title."""
        return int(np.diff(self.title_offsets).max())

    @cached_property
    def history_budget(self) -> int:
        """Tokens that titles and separators of a history may take, so that any answer still fits."""
        return self.max_tokens - len(self.opening) - len(self.suffix) - self.longest_title - 1

    @property
    def end_id(self) -> int:
        """The token that ends an answer."""
        return int(self.end[0])

    @cached_property
    def fingerprint(self) -> str:
        """Digest of all that decides a prompt's ids; covers the tokenizer's files."""
        arrays = (self.opening, self.separator, self.suffix, self.end, self.title_ids, self.title_offsets)
        return sha256_text(*(array.tobytes() for array in arrays), str(self.max_tokens), self.tokenizer_fingerprint)

    def title(self, row: int) -> TokenIds:
        """Token ids of one title, without separator or end."""
        return self.title_ids[self.title_offsets[row] : self.title_offsets[row + 1]]

    def fitting(self, history: NDArray[np.int32]) -> NDArray[np.int32]:
        """The newest items of a history that fit; the oldest are dropped."""
        lengths = self.title_offsets[history + 1] - self.title_offsets[history] + len(self.separator)
        newest_first = np.cumsum(lengths[::-1])
        fits = int(np.searchsorted(newest_first, self.history_budget, side="right"))
        return history[len(history) - fits :] if fits < len(history) else history

    def prompt(self, history: NDArray[np.int32]) -> TokenIds:
        """Token ids of a prompt; an empty history gives the opening alone. Shape: (tokens,)."""
        if len(history) == 0:
            return self.opening
        parts = [self.opening]
        for place, row in enumerate(self.fitting(history).tolist()):
            if place:
                parts.append(self.separator)
            parts.append(self.title(row))
        return np.concatenate([*parts, self.suffix])

    def answer(self, row: int) -> TokenIds:
        """Token ids of an answer: the title and one end token. Shape: (tokens,)."""
        return np.concatenate([self.title(row), self.end])

    def save(self, path: Path) -> None:
        """Writes the template and the segments' ids as JSON."""
        record: dict[str, Any] = {"template": asdict(self.template)}
        record |= {name: getattr(self, name).tolist() for name in ("opening", "separator", "suffix", "end")}
        record |= {
            "max_tokens": self.max_tokens,
            "max_title_tokens": self.max_title_tokens,
            "fingerprint": self.fingerprint,
        }
        write_json(path, record)

    @classmethod
    def load(cls, path: Path, tokenizer: Tokenizer, catalog: Catalog) -> Prompts:
        """Reads what `save` wrote; titles are tokenised again and the fingerprints compared.

        Raises:
            ArtifactMismatch: tokenizer, catalogue or template are not those that the prompts were made with.
        """
        record = read_json(path)
        template = Template(**record["template"])
        stranger = ArtifactMismatch(
            "the run's prompts were made with another tokenizer or catalogue",
            expected=f"prompt fingerprint {record['fingerprint'][:12]}",
            file=path,
            cure="load the run with the backbone and data it was made with",
        )
        room = {name: record[name] for name in ("max_tokens", "max_title_tokens")}
        try:
            compiled = cls.compile(template, tokenizer, catalog, **room)
        except (ConfigError, DataError) as error:  # they compiled once: it is the tokenizer that differs
            raise stranger from error
        # The saved segments are used as they are: a chat template that renders differently today must not change them.
        saved = {name: np.array(record[name], dtype=np.int32) for name in ("opening", "separator", "suffix", "end")}
        prompts = cls(**{**{name: getattr(compiled, name) for name in cls.__dataclass_fields__}, **saved})
        if prompts.fingerprint != record["fingerprint"]:
            raise stranger
        return prompts
