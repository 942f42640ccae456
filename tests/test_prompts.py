"""Prompts over real BPE tokenizers: joined ids, never joined text; the oldest items go first and the answer never."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from tokenizers import Tokenizer as FastTokenizer
from tokenizers import decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from l2d.backbone import TextTokenizer, learn_tokenizer
from l2d.catalog import Catalog
from l2d.errors import ArtifactMismatch, ConfigError, DataError
from l2d.prompts import COMPACT, INSTRUCT, Prompts, Template, resolve_template

TITLES = [
    "red river",
    "red river station",
    "red riverside",
    "The Best of 1999 (Disc 2)",
    "  two  blanks ",
    "naïve café",
    "日本語",
    "<|eos|>",
    "</s> <s> end",
    "line\nbreak",
    "{history} {title} {bos}",
    "a",
    "ends with a colon:",
    ";",
]
CATALOG = Catalog.from_titles(TITLES)
CHAT = (
    "{{ bos_token }}{% for m in messages %}<u>{{ m.content }}</u>{% endfor %}"
    "{% if add_generation_prompt %}<a>{% endif %}"
)


@cache
def learned() -> TextTokenizer:
    return learn_tokenizer(TITLES * 3, 320)


@cache
def metaspace() -> TextTokenizer:
    """As the Llama 2 family has it: a blank is a letter, and each text alone begins with one."""
    fast = FastTokenizer(models.BPE(unk_token="<unk>", byte_fallback=True))
    fast.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="always")
    fast.decoder = decoders.Metaspace()
    specials = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256))]
    trainer = trainers.BpeTrainer(vocab_size=400, special_tokens=specials, show_progress=False)
    fast.train_from_iterator(TITLES * 3, trainer)
    return TextTokenizer(
        PreTrainedTokenizerFast(tokenizer_object=fast, bos_token="<s>", eos_token="</s>", unk_token="<unk>")
    )


class Chatty(TextTokenizer):
    """The learned tokenizer with a chat template, which counts how often it is rendered."""

    def __init__(self) -> None:
        super().__init__(learn_tokenizer(TITLES * 3, 320).inner)
        self.inner.chat_template = CHAT
        self.rendered: list[str] = []

    def render_chat(self, message: str) -> str | None:
        self.rendered.append(message)
        return super().render_chat(message)


TOKENIZERS: dict[str, Callable[[], TextTokenizer]] = {"learned": learned, "metaspace": metaspace}
OWN = Template("own", opening="Bought:", item="{title}", separator=" | ", suffix=" | next: ", end="{eos}")
CASES = [("learned", COMPACT), ("learned", INSTRUCT), ("learned", OWN), ("metaspace", INSTRUCT), ("metaspace", OWN)]


@cache
def compiled(tokenizer: str, template: Template, max_tokens: int = 1024) -> Prompts:
    return Prompts.compile(template, TOKENIZERS[tokenizer](), CATALOG, max_tokens=max_tokens)


def rows(values: list[int]) -> NDArray[np.int32]:
    return np.array(values, dtype=np.int32)


histories = st.lists(st.integers(0, len(TITLES) - 1), max_size=12).map(rows)
items = st.integers(0, len(TITLES) - 1)
cases = pytest.mark.parametrize(("tokenizer", "template"), CASES, ids=lambda value: getattr(value, "name", value))


@cases
@given(history=histories, item=items, more=items)
@settings(max_examples=40, deadline=None)
def test_a_prompt_is_its_segments_alone(
    tokenizer: str, template: Template, history: NDArray[np.int32], item: int, more: int
) -> None:
    """Against each text tokenised alone by the tokenizer itself; so a title has the same ids wherever it stands."""
    words, prompts = TOKENIZERS[tokenizer](), compiled(tokenizer, template)

    def ids(text: str, *, special: bool = True) -> list[int]:
        text = text.replace("{bos}", words.bos).replace("{eos}", words.eos) if special else text
        return list(words.inner(text, add_special_tokens=False, split_special_tokens=not special)["input_ids"])

    def title(row: int) -> list[int]:
        return ids(template.item.replace("{title}", TITLES[row]), special=False)

    expected = ids(template.opening)
    for place, row in enumerate(history.tolist()):
        expected += (ids(template.separator) if place else []) + title(row)
    expected += ids(template.suffix) if len(history) else []
    assert prompts.prompt(history).tolist() == expected
    assert prompts.answer(item).tolist() == [*title(item), prompts.end_id]
    assert prompts.title(more).tolist() == title(more)
    assert prompts.prompt(history).dtype == prompts.answer(item).dtype == np.int32


@given(history=histories, item=items)
@settings(max_examples=60, deadline=None)
def test_a_compact_answer_is_the_next_prompts_path(history: NDArray[np.int32], item: int) -> None:
    prompts = compiled("learned", COMPACT)
    joined = np.concatenate([prompts.prompt(history), prompts.answer(item)])
    assert joined.tolist() == prompts.prompt(np.append(history, np.int32(item))).tolist()


@cases
@given(history=st.lists(items, min_size=1, max_size=40).map(rows), item=items)
@settings(max_examples=40, deadline=None)
def test_long_prompts_lose_the_oldest_items_and_never_the_answer(
    tokenizer: str, template: Template, history: NDArray[np.int32], item: int
) -> None:
    room = compiled(tokenizer, template)
    fixed = len(room.opening) + len(room.suffix)
    prompts = compiled(tokenizer, template, fixed + 2 * room.longest_title + 12)
    prompt, answer = prompts.prompt(history), prompts.answer(item)
    assert len(prompt) + len(answer) <= prompts.max_tokens
    assert answer.tolist() == room.answer(item).tolist()
    kept = next(n for n in range(len(history), 0, -1) if prompt.tolist() == room.prompt(history[-n:]).tolist())
    if kept < len(history):
        wider = room.prompt(history[-kept - 1 :])
        # One more item would leave no room for the longest answer (a history pays for one separator per title).
        assert len(wider) + len(prompts.separator) + prompts.longest_title + 1 > prompts.max_tokens


def test_a_title_that_spells_a_special_token_is_text() -> None:
    for name, special in (("learned", "<|eos|>"), ("metaspace", "</s>")):
        words = TOKENIZERS[name]()
        prompts = compiled(name, INSTRUCT)
        reserved = set(words.inner.all_special_ids)
        assert prompts.end_id == words.inner.convert_tokens_to_ids(special)
        for row, title in enumerate(TITLES):
            assert not ({prompts.end_id, words.inner.bos_token_id} & set(prompts.title(row).tolist())), title
            assert len(prompts.title(row)) > 0
        assert reserved & set(prompts.opening.tolist()) == {words.inner.bos_token_id}


def test_titles_are_cut_and_their_ids_are_kept() -> None:
    short = Prompts.compile(COMPACT, learned(), CATALOG, max_title_tokens=3)
    for row in range(len(TITLES)):
        assert short.title(row).tolist() == compiled("learned", COMPACT).title(row)[:3].tolist()
    assert short.longest_title == 3
    assert short.fingerprint != compiled("learned", COMPACT).fingerprint


def test_a_chat_template_is_rendered_once_and_split() -> None:
    words = Chatty()
    template = resolve_template("instruct", words)
    assert template.chat
    words.rendered.clear()
    prompts = Prompts.compile(template, words, CATALOG)
    assert len(words.rendered) == 1
    opening = "<|bos|><u>" + INSTRUCT.opening.removeprefix("{bos}")
    assert prompts.opening.tolist() == words.encode([opening], special=True)[0]
    assert prompts.suffix.tolist() == words.encode(["\nNext:</u><a>"], special=True)[0]
    for row in range(len(TITLES)):
        prompts.prompt(rows([row, 0]))
    assert len(words.rendered) == 1
    assert prompts.opening.tolist().count(words.inner.bos_token_id) == 1


def test_a_saved_chat_is_not_rendered_anew(tmp_path: Path) -> None:
    words = Chatty()
    prompts = Prompts.compile(resolve_template("instruct", words), words, CATALOG)
    prompts.save(tmp_path / "prompt.json")
    words.inner.chat_template = CHAT.replace("<u>", "<user today>")
    again = Prompts.load(tmp_path / "prompt.json", words, CATALOG)
    assert again.opening.tolist() == prompts.opening.tolist()
    assert again.fingerprint == prompts.fingerprint


def test_without_a_chat_template_instruct_is_plain() -> None:
    assert not resolve_template("instruct", learned()).chat
    with pytest.raises(ConfigError, match="chat"):
        Prompts.compile(Template("chat", opening="a", chat=True), learned(), CATALOG)


@cases
def test_what_is_saved_is_what_is_loaded(tokenizer: str, template: Template, tmp_path: Path) -> None:
    prompts = compiled(tokenizer, template)
    prompts.save(tmp_path / "prompt.json")
    again = Prompts.load(tmp_path / "prompt.json", TOKENIZERS[tokenizer](), CATALOG)
    assert again.fingerprint == prompts.fingerprint
    history = rows([3, 1, 7])
    assert again.prompt(history).tolist() == prompts.prompt(history).tolist()
    assert again.template == template


@pytest.mark.parametrize("template", [COMPACT, INSTRUCT], ids=lambda template: template.name)
def test_another_tokenizer_or_catalogue_is_refused(template: Template, tmp_path: Path) -> None:
    path = tmp_path / "prompt.json"
    compiled("learned", template).save(path)
    others = [
        (learn_tokenizer(TITLES, 300), CATALOG),
        (metaspace(), CATALOG),
        (learned(), Catalog.from_titles(TITLES[:-1])),
        (learned(), Catalog.from_titles([*TITLES[:-1], "another"])),
        (learned(), Catalog.from_titles(TITLES[::-1])),
    ]
    for words, catalog in others:
        with pytest.raises(ArtifactMismatch, match="another tokenizer or catalogue"):
            Prompts.load(path, words, catalog)


def write(path: Path, text: str) -> str:
    path.write_text(text, encoding="utf-8")
    return str(path)


def test_a_template_file(tmp_path: Path) -> None:
    name = write(tmp_path / "mine.toml", 'prompt = "Bought:{history}\\nNext:"\nitem = " «{title}»"\nseparator = ","')
    template = resolve_template(name, learned())
    assert template == Template("mine.toml", "Bought:", item=" «{title}»", separator=",", suffix="\nNext:")
    prompts = Prompts.compile(template, learned(), CATALOG)
    text = learned().decode(prompts.prompt(rows([0, 11])).tolist())
    assert text == "Bought: «red river», «a»\nNext:"


@pytest.mark.parametrize(
    ("text", "match"),
    [
        ('prompt = "no place"', "history"),
        ('prompt = "{history}{history}"', "history"),
        ("prompt = 3", "history"),
        ('item = " {title}"', "history"),
        ("not toml", "cannot read"),
        ('prompt = "a{history}"\nitem = "no place"', "title"),
        ('prompt = "a{history}"\nitem = 3', "wrong type"),
        ('prompt = "a{history}"\nchat = "yes"', "wrong type"),
        ('prompt = "a{history}"\nsuffix = "x"', "unknown template key"),
    ],
)
def test_a_bad_template_file_is_refused(text: str, match: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=match) as caught:
        resolve_template(write(tmp_path / "bad.toml", text), learned())
    assert "bad.toml" in str(caught.value) or match == "title"


def test_a_template_that_cannot_work_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="unknown template"):
        resolve_template("kompakt", learned())
    (tmp_path / "latin.toml").write_bytes(b'prompt = "\xe9{history}"')
    with pytest.raises(ConfigError, match="cannot read"):
        Template.read(tmp_path / "latin.toml")
    for template, match in (
        (Template("x", opening="a", end="two tokens"), "one token"),
        (Template("x", opening="a", end=""), "one token"),
        (Template("x", opening=""), "opening has no token"),
    ):
        with pytest.raises(ConfigError, match=match):
            Prompts.compile(template, learned(), CATALOG)
    with pytest.raises(ConfigError, match="one token"):
        Prompts.compile(COMPACT, metaspace(), CATALOG)  # a line end alone is a blank and a line end there
    with pytest.raises(ConfigError, match="no room"):
        Prompts.compile(INSTRUCT, learned(), CATALOG, max_tokens=40)


def test_an_item_may_hold_other_braces() -> None:
    template = Template("x", opening="a", item=" {title} {x}")
    prompts = Prompts.compile(template, learned(), CATALOG)
    assert learned().decode(prompts.title(0).tolist()) == " red river {x}"


def test_a_title_without_tokens_is_refused() -> None:
    class Forgetful(TextTokenizer):
        def encode(self, texts, *, special: bool):  # type: ignore[no-untyped-def]
            return [
                [] if text.strip() == "a" else ids
                for text, ids in zip(texts, super().encode(texts, special=special), strict=True)
            ]

    with pytest.raises(DataError, match="no tokens"):
        Prompts.compile(COMPACT, Forgetful(learned().inner), CATALOG)
