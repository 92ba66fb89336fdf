"""What a home may configure, read from `harmonizer.toml` in the home folder."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from harmonizer_assets.core.errors import ConfigurationError

ScorerName = Literal["model", "evidence", "count_rule"]
EmbedderName = Literal["local", "openai"]
JudgeName = Literal["offline", "openai"]
Profile = Literal["fast", "cheap"]
CacheScope = Literal["context", "word"]
Explanations = Literal["codes", "text"]


class _Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class SimilaritySettings(_Section):
    """How labels are compared and when similarity alone decides."""

    scorer: ScorerName = "model"
    """`model` learns from the labels; `evidence` compares similar words only; `count_rule` is the
    classic rule."""
    neighbours: int = Field(default=50, ge=1, le=500)
    """Nearest documents of other merchants that vote on a label."""
    match_threshold: float = Field(default=0.70, gt=0, le=1)
    """Cosine similarity from which two labels count as a match."""
    min_valid_matches: int = Field(default=10, ge=1)
    """`count_rule` only: VALID matches from which a label counts as valid."""
    valid_below: float = Field(default=0.20, ge=0, le=1)
    """`evidence` only: an outlier score below this is accepted without a judge."""
    outlier_above: float = Field(default=0.90, ge=0, le=1)
    """`evidence` only: an outlier score above this is rejected without a judge."""
    exact_search_limit: int = Field(default=20_000, ge=0)
    """Up to this many documents the search across merchants is exact and reproducible to the bit;
    beyond it Chroma's approximate index answers."""
    reference_limit: int = Field(default=20_000, ge=100)
    """At most this many distinct documents of one merchant are compared with each of its labels."""

    @model_validator(mode="after")
    def _thresholds_in_order(self) -> SimilaritySettings:
        if self.valid_below > self.outlier_above:
            raise ValueError("valid_below must not exceed outlier_above")
        return self


class TriageSettings(_Section):
    """Which labels the `model` scorer decides without a judge."""

    alpha: float = Field(default=0.01, gt=0, lt=0.5)
    """At most this share of the labels accepted without a question is wrong; likewise, in
    expectation, at most this share of those rejected is right."""
    confidence: float = Field(default=0.95, gt=0.5, lt=1)
    """Probability that the promise on accepted labels holds."""
    accept_at_most: float = Field(default=0.10, gt=0, le=0.5)
    """No label above this probability of being wrong is accepted, whatever the promise allows."""
    reject_at_least: float = Field(default=0.90, ge=0.5, le=1)
    """No label below this probability of being wrong is rejected."""
    least_validated: int = Field(default=300, ge=50)
    """Validated labels from which a promise is given."""
    least_examples: int = Field(default=20, ge=0)
    """Labels of a type with fewer trusted examples are always asked about."""
    least_rejected: int = Field(default=30, ge=1)
    """Fewer labels than this are not worth rejecting as a group."""
    refit_growth: float = Field(default=2.0, gt=1)
    """The model is fitted again when labels, or validated labels, have grown by this factor."""


class EmbeddingSettings(_Section):
    """Which embedder turns documents into vectors."""

    embedder: EmbedderName = "local"
    openai_model: str = "text-embedding-3-small"
    openai_dimensions: int = Field(default=256, ge=8, le=3072)


class JudgeSettings(_Section):
    """Who decides what similarity leaves open."""

    judge: JudgeName = "offline"
    profile: Profile = "fast"
    """`fast` takes the least time, `cheap` the fewest tokens."""
    max_label_type_concurrency: int = Field(default=5, ge=1)
    """Label types with calls in flight."""
    max_merchant_concurrency: int = Field(default=10, ge=1)
    """Merchants of one label type with calls in flight; small ones that share calls are one."""
    max_word_concurrency: int = Field(default=20, ge=1)
    """Calls in flight for one merchant and label type."""
    llm_batch_size: int | None = Field(default=None, ge=1, le=50)
    """Words per call; chosen from latency, limits and prices when it is not set."""
    skip_high_confidence: bool = True
    """Whether similarity alone decides the clear cases."""
    max_requests_in_flight: int | None = Field(default=None, ge=1, le=2_000)
    """Calls in flight in all; learned from the endpoint when it is not set."""
    requests_per_minute: float | None = Field(default=None, gt=0)
    """The endpoint's limit; learned from its headers when it is not set."""
    tokens_per_minute: float | None = Field(default=None, gt=0)
    """The endpoint's limit; learned from its headers when it is not set."""
    max_attempts: int = Field(default=5, ge=1, le=20)
    """Attempts per question, transport retries and re-asks together."""
    timeout_seconds: float = Field(default=60.0, gt=0)
    """The longest that a call may take; less where the answer is expected sooner."""
    backoff_seconds: float = Field(default=0.5, ge=0)
    """Base of the exponential pause before a retry."""
    max_retry_after_seconds: float = Field(default=60.0, gt=0)
    """When the endpoint asks to wait longer, the words are left to a later run."""
    outage_patience_seconds: float = Field(default=300.0, gt=0)
    """How long a run waits for an endpoint that has stopped answering."""
    temperature: Annotated[float, Field(ge=0, le=2)] | Literal["default"] = 0.0
    """Sent with each request; `default` sends none, which some models need."""
    reasoning_effort: str | None = Field(default=None, pattern="^[a-z]+$")
    """Sent with each request if it is set, for models that think before they answer."""
    cache_scope: CacheScope = "context"
    """`context`: an answer holds for the same word in the same context with the same evidence;
    `word`: for the same word of the same merchant and label type."""
    second_look: bool = False
    """Whether a suggestion that similar words do not support is asked about once more: is the
    suggested label type right for this word?"""
    explanations: Explanations = "codes"
    """`codes`: a model names one of a few reasons, which takes one token; `text`: its own words."""
    budget_usd: float | None = Field(default=None, ge=0)
    """The most that one run may spend."""
    budget_tokens: int | None = Field(default=None, ge=0)
    """The most tokens that one run may use."""


class CheckSettings(_Section):
    """When asset checks warn."""

    max_unresolved_share: float = Field(default=0.25, ge=0, le=1)
    """Share of the labels that may be left undecided."""
    max_outlier_rate_jump: float = Field(default=0.05, ge=0, le=1)
    """By how much the share of outliers of a label type may change from one run to the next."""
    max_verdict_drift: float = Field(default=0.05, ge=0, le=1)
    """Share of the words that another model or prompt may judge otherwise."""


class PatternSettings(_Section):
    """Which recurring wrong labels are proposed as rules."""

    min_support: int = Field(default=3, ge=2)
    """Wrong labels that a pattern covers."""
    min_precision: float = Field(default=0.9, gt=0, le=1)
    """Share of wrong ones among the decided labels that it covers."""


class EvaluationSettings(_Section):
    """What is known to be right or wrong, where it is."""

    truth: Path | None = None
    """A truth file, relative to the home; the asset `detection_quality` compares with it."""


class TableSettings(_Section):
    """Tables of a SQL database in which labels arrive; its URL is in the environment."""

    words: str | None = None
    """`table` or `schema.table`, with the columns of the words file."""
    labels: str | None = None
    """`table` or `schema.table`, with the columns of the labels file."""
    changed_at: str = "updated_at"
    """The column, a time or a number that grows, that says when a row has last changed."""
    overlap_seconds: int = Field(default=300, ge=0)
    """How much later than that a row may become visible."""

    @model_validator(mode="after")
    def _names_a_table(self) -> TableSettings:
        if self.words is None and self.labels is None:
            raise ValueError("name a table of words, a table of labels, or both")
        return self


class ArrivalSettings(_Section):
    """Where labels arrive from besides the inbox."""

    s3: str | None = Field(default=None, pattern="^s3://[^/]+(/.*)?$")
    """`s3://bucket/prefix`: every folder under it is a batch, once `_SUCCESS` lies in it."""
    s3_endpoint_url: str | None = None
    """Of a server that speaks S3, where it is not Amazon's."""
    tables: TableSettings | None = None


class Settings(_Section):
    """All settings of one home."""

    similarity: SimilaritySettings = SimilaritySettings()
    triage: TriageSettings = TriageSettings()
    embedding: EmbeddingSettings = EmbeddingSettings()
    judge: JudgeSettings = JudgeSettings()
    checks: CheckSettings = CheckSettings()
    patterns: PatternSettings = PatternSettings()
    evaluation: EvaluationSettings = EvaluationSettings()
    arrivals: ArrivalSettings = ArrivalSettings()

    def with_judge(self, **chosen: Any) -> Settings:
        """These settings with some of the judge's replaced; those that are None stay.

        Raises:
            ConfigurationError: a value is out of range.
        """
        given = {name: value for name, value in chosen.items() if value is not None}
        try:
            judge = JudgeSettings.model_validate({**self.judge.model_dump(), **given})
        except ValidationError as error:
            first = error.errors()[0]
            raise ConfigurationError(f"{first['loc'][0]}: {first['msg']}") from error
        return self.model_copy(update={"judge": judge})

    @classmethod
    def load(cls, path: Path) -> Settings:
        """Read settings from a TOML file; a missing file means defaults.

        Raises:
            ConfigurationError: the file is not TOML, or a value in it is unknown or out of range.
        """
        try:
            content = path.read_text(encoding="utf-8")
        except FileNotFoundError:
            return cls()
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigurationError(f"{path}: cannot be read ({error})") from error
        try:
            return cls.model_validate(tomllib.loads(content))
        except tomllib.TOMLDecodeError as error:
            raise ConfigurationError(f"{path}: not valid TOML: {error}") from error
        except ValidationError as error:
            first = error.errors()[0]
            where = ".".join(str(part) for part in first["loc"])
            raise ConfigurationError(f"{path}: {where}: {first['msg']}") from error
