"""What goes in and out as JSON: every list and every text has a greatest length."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, JsonValue, StrictBool, StrictInt, StringConstraints, model_validator

MOST_HISTORY, MOST_LISTED, MOST_FILTERS, MOST_VALUES = 1000, 10_000, 16, 1000
MOST_K, MOST_BATCH, MOST_WRITTEN, MOST_EXPLAINED = 1000, 256, 1000, 20
MOST_ANSWERED, MOST_REASONS = 10_000, 1000
MOST_DEADLINE = 60_000
WHOLE = Field(ge=-(2**63), lt=2**63)

Text = Annotated[str, StringConstraints(strict=True, min_length=1, max_length=2000, pattern=r"^[^\x00]*$")]
Name = Annotated[str, StringConstraints(strict=True, min_length=1, max_length=256, pattern=r"^[^\x00]*$")]
Integer = Annotated[StrictInt, WHOLE]
Item = Annotated[Text | Integer, Field(description="Id or title of an item; `id:` or `title:` in front decides.")]
ItemId = Annotated[Name | Integer, Field(description="Id of an item.")]
User = Annotated[Name | Integer, Field(description="Id of a user.")]
Decoder = Literal[
    "global", "local", "vote", "auto", "recall", "beam", "transitions", "cooccurrence", "repeat-last", "popularity"
]

Number = Annotated[float, Field(strict=True, allow_inf_nan=False)]
Value = Text | StrictBool | Integer | Number
Values = Annotated[list[Value], Field(max_length=MOST_VALUES)]


class Model(BaseModel):
    """Whatever is not named is refused."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Condition(Model):
    """What a metadata column must fulfil; several parts must all hold."""

    gt: Value | None = None
    gte: Value | None = None
    lt: Value | None = None
    lte: Value | None = None
    not_: Annotated[Value | Values | None, Field(alias="not")] = None


Filter = Annotated[
    dict[Name, Value | Values | Condition],
    Field(
        max_length=MOST_FILTERS,
        description="Conditions on item metadata, all of which must hold: a value, a list of values, or a range.",
        examples=[{"brand": ["Sony", "LG"], "price": {"gte": 5, "lt": 20}}],
    ),
]
Items = Annotated[list[Item], Field(max_length=MOST_LISTED)]


class RecommendBody(Model):
    """A request for a list.

    Either `history` or `user` says for whom. With both, the history is used and the user only chooses the run.
    """

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {"history": ["Abbey Road", "Let It Be"], "k": 5},
                {"user": "17", "k": 10, "exclude_seen": True, "explain": True},
                {"history": [], "k": 3},
            ]
        }
    )

    history: Annotated[
        list[Item] | None,
        Field(max_length=MOST_HISTORY, description="Ids or titles, oldest first; empty for a new user."),
    ] = None
    user: Annotated[User | None, Field(description="A user whose history the run knows.")] = None
    k: Annotated[int, Field(strict=True, ge=1, le=MOST_K, description="Length of the list.")] = 10
    decoder: Annotated[Decoder | None, Field(description="What answers; the run's usual one if left out.")] = None
    exclude: Annotated[Items, Field(description="Items that must not be recommended.")] = []
    allow: Annotated[Items | None, Field(description="The only items that may be recommended.")] = None
    filter: Filter | None = None
    exclude_seen: Annotated[StrictBool, Field(description="Whether the history's own items are left out.")] = False
    explain: Annotated[
        StrictBool, Field(description=f"Whether to say why, for each item; k is then at most {MOST_EXPLAINED}.")
    ] = False
    deadline_ms: Annotated[
        int | None,
        Field(strict=True, ge=1, le=MOST_DEADLINE, description="Milliseconds after which an answer is of no use."),
    ] = None
    run: Annotated[Name | None, Field(description="The run that answers; chosen by the user if left out.")] = None

    @model_validator(mode="after")
    def _clear(self) -> RecommendBody:
        if self.history is None and self.user is None:
            raise ValueError("either history or user must be given")
        if self.explain and self.k > MOST_EXPLAINED:
            raise ValueError(f"explanations are given for at most {MOST_EXPLAINED} items: make k smaller")
        return self

    @property
    def conditions(self) -> dict[str, Any] | None:
        """The filter as the library takes it."""
        if self.filter is None:
            return None
        return {
            name: value.model_dump(by_alias=True, exclude_unset=True) if isinstance(value, Condition) else value
            for name, value in self.filter.items()
        }


class BatchBody(Model):
    """Several requests at once; all are answered or none.

    Their `k` may come to 10,000, and that of those with explanations to 1,000.
    """

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"requests": [{"history": ["Abbey Road"]}, {"user": "17", "k": 3}]}]}
    )
    requests: Annotated[list[RecommendBody], Field(min_length=1, max_length=MOST_BATCH)]
    deadline_ms: Annotated[int | None, Field(strict=True, ge=1, le=MOST_DEADLINE)] = None

    @model_validator(mode="after")
    def _bounded(self) -> BatchBody:
        for most, counted, what in (
            (MOST_ANSWERED, self.requests, "items in all"),
            (MOST_REASONS, [one for one in self.requests if one.explain], "explained items in all"),
        ):
            if sum(one.k for one in counted) > most:
                raise ValueError(f"at most {most} {what}: make k smaller, or send several batches")
        return self


class InteractionBody(Model):
    """Somebody chose something."""

    user_id: User
    item_id: ItemId
    timestamp: Annotated[Integer | None, Field(description="Unix seconds; now if left out.")] = None


class InteractionsBody(Model):
    """Interactions, oldest first; all are written or none."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [{"interactions": [{"user_id": "17", "item_id": "B000002UAL", "timestamp": 1766966400}]}]
        }
    )
    interactions: Annotated[list[InteractionBody], Field(min_length=1, max_length=MOST_WRITTEN)]


Metadata = Annotated[dict[Name, JsonValue], Field(max_length=64)]


class NewItem(Model):
    """An item with its title and, where there are any, its columns."""

    item_id: ItemId
    title: Annotated[Text | None, Field(description="Needed for a new item; that of a known one cannot change.")] = None
    metadata: Metadata | None = None


class ItemsBody(Model):
    """Items to add, or whose metadata to replace; all or none."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [{"items": [{"item_id": "B1", "title": "Abbey Road", "metadata": {"price": 9.5}}]}]
        }
    )
    items: Annotated[list[NewItem], Field(min_length=1, max_length=MOST_WRITTEN)]


class Listed(BaseModel):
    """A recommended item; `explanation` where it was asked for."""

    item_id: str | int
    title: str
    score: float
    explanation: dict[str, Any] | None = None


class RecommendAnswer(BaseModel):
    """A list, best first, and what it was made by. `cold`: the history was empty, so popularity answered."""

    items: list[Listed]
    request_id: str
    run: str
    memory_version: str
    decoder: str
    cold: bool
    milliseconds: Annotated[float, Field(description="Spent in the server.")]


class BatchAnswer(BaseModel):
    """An answer for each request, in their order."""

    responses: list[RecommendAnswer]
    request_id: str


class SimilarAnswer(BaseModel):
    """The items nearest to one."""

    items: list[Listed]
    request_id: str
    run: str
    memory_version: str


class FoundItem(BaseModel):
    """An item of the catalogue. `entries`: how many entries of the memory carry it."""

    item_id: str | int
    title: str
    entries: int
    metadata: dict[str, Any] | None = None


class FoundAnswer(BaseModel):
    """Items that a query finds, best first."""

    items: list[FoundItem]
    request_id: str
    run: str


class RunWritten(BaseModel):
    """What a write did to one run; which counts there are depends on the write."""

    run: str
    memory_version: str
    added: int | None = None
    known: int | None = None
    updated: int | None = None
    entries: int | None = None
    interactions: int | None = None


class WrittenAnswer(RunWritten):
    """What a write did: to the first run, and in `runs` to each."""

    request_id: str
    runs: list[RunWritten]


class LastWrite(BaseModel):
    """A write, without saying whose."""

    kind: str
    count: int
    seconds_ago: float
    memory_version: str


class RunMemory(BaseModel):
    """What a run remembers. `versions`: how many can be returned to."""

    run: str
    memory_version: str
    entries: int
    items: int
    users: int
    catalog: int
    versions: int
    bytes: int
    width: int
    decoder: str
    decoders: list[str]
    last_writes: list[LastWrite]


class MemoryAnswer(BaseModel):
    """What the runs remember, in their order."""

    runs: list[RunMemory]
    read_only: bool
    request_id: str


class RunState(BaseModel):
    """Whether a run answers."""

    run: str
    ready: bool
    waiting: int


class ReadyAnswer(BaseModel):
    """Whether requests are taken. `runs`: where keys are asked for, told to those alone who give one."""

    ready: bool
    draining: bool
    runs: list[RunState] | None = None


class HealthAnswer(BaseModel):
    """The process answers."""

    ok: bool


class ReloadAnswer(BaseModel):
    """The runs that are being opened anew."""

    runs: list[str]
    request_id: str


class Fault(BaseModel):
    """What is wrong, and what to do."""

    what: str
    got: str | None = None
    expected: str | None = None
    cure: str | None = None


class FaultAnswer(BaseModel):
    """An error."""

    error: Fault
    request_id: str
