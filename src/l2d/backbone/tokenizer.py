"""A Hugging Face tokenizer as prompts see it, and the BPE that `scratch:*` backbones learn on the catalogue."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterable, Sequence
from functools import cached_property
from pathlib import Path

from tokenizers import Tokenizer as FastTokenizer
from tokenizers import decoders, models, pre_tokenizers, trainers
from transformers import AutoTokenizer, PreTrainedTokenizerBase, PreTrainedTokenizerFast

from l2d.artifacts import sha256_text
from l2d.errors import ConfigError

BOS, EOS, PAD = "<|bos|>", "<|eos|>", "<|pad|>"
CHAT_DATE = "01 Jan 2025"
"""Date given to chat templates that print one: a fixed date keeps prompts the same tomorrow."""


class TextTokenizer:
    """Implements `l2d.prompts.Tokenizer` on a transformers tokenizer.

    Args:
        inner: any tokenizer that `AutoTokenizer` loads.
    """

    def __init__(self, inner: PreTrainedTokenizerBase) -> None:
        self.inner = inner

    @classmethod
    def open(cls, name: str, *, revision: str | None = None) -> TextTokenizer:
        """Loads a tokenizer from the hub or a folder.

        Raises:
            ConfigError: there is none.
        """
        try:
            return cls(AutoTokenizer.from_pretrained(name, revision=revision))
        except (OSError, ValueError, KeyError) as error:
            raise ConfigError(
                f"cannot load a tokenizer from {name}", got=error, cure="check the name or the folder"
            ) from error

    @property
    def eos(self) -> str:
        """Text of the end token."""
        if self.inner.eos_token is None:
            raise ConfigError("the tokenizer has no end token", cure="set eos_token in its configuration")
        return str(self.inner.eos_token)

    @property
    def bos(self) -> str:
        """Text of the first token; the end token where the tokenizer has none (GPT-2 and Qwen families)."""
        return str(self.inner.bos_token or self.eos)

    @property
    def size(self) -> int:
        """Number of ids, added tokens included."""
        return len(self.inner)

    @cached_property
    def fingerprint(self) -> str:
        """Digest of the tokenizer's files, apart from what names where it was loaded from."""
        with tempfile.TemporaryDirectory() as folder:
            self.inner.save_pretrained(folder)
            parts: list[str | bytes] = []
            for file in sorted(Path(folder).rglob("*")):
                if file.name == "tokenizer_config.json":
                    continue  # holds paths and library versions; what changes ids is in the other files
                parts += [file.name, file.read_bytes()]
        return sha256_text(*parts, self.bos, self.eos)

    def encode(self, texts: Sequence[str], *, special: bool) -> list[list[int]]:
        """Ids of each text alone, nothing added.

        Args:
            texts: any texts.
            special: whether special tokens written in a text are meant as such. False for titles, so that a title
                cannot end a prompt by spelling an end token.
        """
        if not texts:
            return []
        encoded = self.inner(list(texts), add_special_tokens=False, split_special_tokens=not special)
        return [list(ids) for ids in encoded["input_ids"]]

    def decode(self, ids: Sequence[int]) -> str:
        """Text of token ids, special tokens left out."""
        return str(self.inner.decode(list(ids), skip_special_tokens=True))

    def render_chat(self, message: str) -> str | None:
        """The chat text up to the answer, date fixed and thinking off; None without a chat template."""
        if not getattr(self.inner, "chat_template", None):
            return None
        return str(
            self.inner.apply_chat_template(
                [{"role": "user", "content": message}],
                tokenize=False,
                add_generation_prompt=True,
                enable_thinking=False,
                date_string=CHAT_DATE,
            )
        )

    def save(self, folder: Path) -> None:
        """Writes the tokenizer's files into a folder."""
        self.inner.save_pretrained(folder)


def learn_tokenizer(titles: Iterable[str], vocabulary: int) -> TextTokenizer:
    """Learns a byte-level BPE on titles; deterministic for the same titles in the same order.

    Args:
        titles: texts known at training time. Titles of later items must not be among them.
        vocabulary: most ids, the 256 bytes and 3 special tokens included.
    """
    fast = FastTokenizer(models.BPE())
    fast.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    fast.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary,
        special_tokens=[PAD, BOS, EOS],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    fast.train_from_iterator((" " + title for title in titles), trainer)
    return TextTokenizer(_wrap(fast))


def _wrap(fast: FastTokenizer) -> PreTrainedTokenizerFast:
    json.loads(fast.to_str())  # a tokenizer that cannot be written must fail here and not after tuning
    return PreTrainedTokenizerFast(tokenizer_object=fast, bos_token=BOS, eos_token=EOS, pad_token=PAD)
