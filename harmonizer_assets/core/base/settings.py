"""The settings of a home, read from `harmonizer.toml` in the home folder."""

from __future__ import annotations

import datetime as dt
import re
import zoneinfo
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Annotated, Any, Final, Literal

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    ValidationError,
    field_validator,
    model_validator,
)
from pydantic.fields import FieldInfo

from harmonizer_assets.core.base.config_files import first_problem, load_config
from harmonizer_assets.core.base.errors import ConfigurationError

ScorerName = Literal["model", "evidence", "count_rule"]
EmbedderName = Literal["local", "openai"]
JudgeName = Literal["offline", "openai"]
Profile = Literal["fast", "cheap"]
CacheScope = Literal["context", "word"]
Explanations = Literal["codes", "text"]
Settlement = Literal["majority", "third"]
ExecutorName = Literal["auto", "inline", "processes", "celery", "lambda"]
TargetName = Literal["copy", "parquet", "ducklake"]
Origin = Annotated[str, Field(pattern=r"^https?://[a-z0-9][a-z0-9.-]*(:[0-9]{1,5})?$")]

_ADDRESS: Final = re.compile(r"https?://[^/?#@\s]+/[^?#\s]*")


class _Section(BaseModel):
    # Descriptions of fields are read from the strings below them: help texts, run configuration
    # and documentation are made of the same sentences.
    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)


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
    reference_limit: int = Field(default=10_000, ge=100)
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
    """Probability that the guarantee on accepted labels holds."""
    accept_at_most: float = Field(default=0.10, gt=0, le=0.5)
    """No label above this probability of being wrong is accepted, whatever the guarantee allows."""
    reject_at_least: float = Field(default=0.90, ge=0.5, le=1)
    """No label below this probability of being wrong is rejected."""
    least_validated: int = Field(default=300, ge=50)
    """Validated labels from which a guarantee is given."""
    ask_at_most: float = Field(default=0.25, gt=0, le=1)
    """Without a guarantee, a model is asked about the most suspicious labels, up to this share of
    all; the others stay unresolved."""
    least_examples: int = Field(default=20, ge=0)
    """Labels of a type with fewer trusted examples are always asked about."""
    least_rejected: int = Field(default=30, ge=1)
    """Fewer labels than this are not worth rejecting as a group."""
    refit_growth: float = Field(default=2.0, gt=1)
    """The model is refitted when labels, or validated labels, have grown by this factor."""


class EmbeddingSettings(_Section):
    """Which embedder turns documents into vectors."""

    embedder: EmbedderName = "local"
    """`local` computes vectors on this machine; `openai` asks an endpoint that speaks its API."""
    openai_model: str = "text-embedding-3-small"
    """`openai` only: the model to ask."""
    openai_dimensions: int = Field(default=256, ge=8, le=3072)
    """`openai` only: length of a vector."""


class IndexSettings(_Section):
    """Where the vectors of documents are."""

    server: str | None = Field(default=None, pattern=r"^https?://[A-Za-z0-9.-]+(:[0-9]{1,5})?$")
    """A Chroma server such as `http://127.0.0.1:8000`, as `chroma run` starts it; by default Chroma
    is part of the process and its files are in the home. Another machine takes `https` and a token
    in `HARMONIZER_CHROMA_TOKEN`, which is sent as `Authorization: Bearer`."""
    database: str = Field(default="harmonizer", pattern="^[A-Za-z0-9][A-Za-z0-9_-]{2,60}$")
    """`server` only: the database on it, one for each home; it is made where there is none."""


class JudgeSettings(_Section):
    """Who decides what similarity leaves open."""

    judge: JudgeName = "offline"
    """`offline` decides by the outlier scores alone; `openai` asks a language model."""
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
    keep_bought_answers: bool = True
    """Whether an answer that was bought before and still fits its question decides in runs that
    would not ask it, too: those of the offline judge, and where similarity decides."""
    answers: str | None = Field(
        default=None,
        pattern=r"^(postgresql://([^:@/]+@)?[^@]+|dynamodb://[\w.-]+|duckdb:///[^?#]+)$",
    )
    """A cache of answers that several homes share, beside the home's own: none by default, or
    `postgresql://user@host/database`, `dynamodb://table`, `duckdb:///file`. Credentials are in the
    environment, never here."""
    answers_lease_seconds: float = Field(default=60.0, ge=1, le=3_600)
    """After so many seconds without a sign of life from a run, other homes ask what it had
    claimed."""
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
    wait_seconds: float = Field(default=3_600.0, ge=0)
    """How long a run or a batch waits for another process of the home that asks a model."""
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
    """The most that one run may spend, together with the runs that retry it."""
    budget_tokens: int | None = Field(default=None, ge=0)
    """The most tokens that one run may use, together with the runs that retry it."""
    backfill_budget_usd: float | None = Field(default=None, ge=0)
    """The most that all runs of one backfill may spend together; without any limit for backfills
    it is what one run may spend."""
    backfill_budget_tokens: int | None = Field(default=None, ge=0)
    """The most tokens that all runs of one backfill may use together."""
    daily_budget_usd: float | None = Field(default=None, ge=0)
    """The most that a home may spend on one day, in UTC."""
    daily_budget_tokens: int | None = Field(default=None, ge=0)
    """The most tokens that a home may use on one day, in UTC."""

    @property
    def limits_usd(self) -> bool:
        """Whether any budget is in USD."""
        limits = self.budget_usd, self.backfill_budget_usd, self.daily_budget_usd
        return any(limit is not None for limit in limits)


class UnitSettings(_Section):
    """Who computes `similarity_matches`: the run itself, or others, in units of whole merchants."""

    executor: ExecutorName = "auto"
    """`auto`: `processes` where it pays, which is from 40,000 labels to be scored and three cores,
    as long as similar words are searched exactly; else `inline`, the process of the run.
    `processes`: one process per core of this machine; `celery`: workers that `harmonizer worker`
    starts on any number of machines, through a queue; `lambda`: a function of AWS Lambda."""
    store: str | None = Field(default=None, pattern=r"^(file:///|s3://[^/]+)")
    """Where units and results are kept: `file:///folder` on a disk that all workers share, or
    `s3://bucket/prefix`, one for each home; by default a folder of the home."""
    store_endpoint_url: str | None = None
    """Of a server that speaks S3, where it is not Amazon's."""
    processes: int | None = Field(default=None, ge=1, le=256)
    """Processes that `processes`, or a worker, starts; by default one per core. `auto` starts as
    many at most, and no more than one for every 5,000 labels: each takes about 0.4 GB."""
    labels_per_unit: int = Field(default=1_000, ge=1)
    """A unit ends before the merchant that would give it more labels. Larger ones are a little less
    work in all, and fewer requests to a bucket; smaller ones show progress sooner."""
    attempts: int = Field(default=3, ge=1, le=20)
    """How often a unit is tried; one that crashes its process each time is tried as often."""
    seconds: float = Field(default=600.0, ge=1, le=43_000)
    """The longest that an attempt may take."""
    queue: str = Field(default="harmonizer-units", pattern="^[A-Za-z0-9_-]{1,60}$")
    """`celery` only: the name of the queue."""
    function: str | None = Field(default=None, pattern=r"^[A-Za-z0-9_:/.$-]{1,170}$")
    """`lambda` only: the name or the ARN of the function."""
    most_waiting: int = Field(default=64, ge=1, le=10_000)
    """`celery` and `lambda` only: units that are handed out at once."""


class PublishSettings(_Section):
    """Where the tables are published after each run, as one version that is there as a whole."""

    target: TargetName = "copy"
    """`copy`: the read-only copy in the home, which is always made; `parquet`: that, and files in
    an object store; `ducklake`: that, and a snapshot in a DuckLake."""
    url: str | None = Field(default=None, pattern=r"^(file:///|s3://[^/]+)")
    """`parquet` and `ducklake` only: where files are kept, `file:///folder` or
    `s3://bucket/prefix`, one for each home."""
    endpoint_url: str | None = None
    """Of a server that speaks S3, where it is not Amazon's."""
    catalog: str | None = Field(default=None, pattern=r"^postgresql://([^:@/]+@)?[^@]+$")
    """`ducklake` only: `postgresql://user@host/database`, one for each home, with the password in
    `PGPASSWORD`; by default a file beside the data, where that is a folder."""
    take_over: str | None = Field(default=None, pattern="^[0-9a-f]{12}$")
    """The id of another home that has published there, in whose place this one goes on. Without it
    the versions of another home are left alone, and publishing is refused."""

    @model_validator(mode="after")
    def _says_where(self) -> PublishSettings:
        if self.target != "copy" and self.url is None:
            raise ValueError(f"{self.target} needs a url")
        if self.target == "ducklake" and self.catalog is None and str(self.url).startswith("s3:"):
            raise ValueError("a DuckLake on S3 needs a catalog in PostgreSQL")
        return self


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


class MissingLabelSettings(_Section):
    """Which words without a label are proposed for one."""

    find: bool = True
    """Whether words without a label are searched; it takes time in proportion to them."""
    least_score: float = Field(default=0.5, ge=0, le=1)
    """Words with a lower score are not listed."""
    decide: bool = False
    """Whether missing labels are decided, instead of only proposed: `is_missing` is true then."""
    decide_from: float = Field(default=0.9, ge=0, le=1)
    """Score from which they are, where `decide` is set."""


class EvaluationSettings(_Section):
    """What is known to be right or wrong, where it is."""

    truth: Path | None = None
    """A truth file, relative to the home; the asset `detection_quality` compares with it."""

    def truth_file(self, home: Path) -> Path | None:
        """Return the truth file of a home folder, None where none is set."""
        return None if self.truth is None else home / self.truth


def time_zone(name: str) -> dt.tzinfo | None:
    """Return the time zone of a name; None where there is none."""
    if name == "UTC":
        return dt.UTC
    try:
        return zoneinfo.ZoneInfo(name)
    except (zoneinfo.ZoneInfoNotFoundError, ValueError, OSError):
        return None


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
    time_zone: str = "UTC"
    """The zone of times in `changed_at` that name none, such as `Europe/Berlin`; it decides which
    of two batches is the later one. Of an hour that comes twice, as clocks are set back, the first
    is meant."""

    @field_validator("time_zone")
    @classmethod
    def _is_a_zone(cls, name: str) -> str:
        if time_zone(name) is None:
            raise ValueError(f"{name!r} is no time zone: write one such as Europe/Berlin")
        return name

    @model_validator(mode="after")
    def _names_a_table(self) -> TableSettings:
        if self.words is None and self.labels is None:
            raise ValueError("name a table of words, a table of labels, or both")
        return self


class DynamoSettings(_Section):
    """A DynamoDB table of words and labels; the guide on buckets and tables has its layout."""

    table: str = Field(min_length=1)
    """Its name."""
    region: str | None = None
    """The region; by default that of the environment."""
    endpoint_url: str | None = None
    """Of a server that speaks DynamoDB, where it is not Amazon's."""
    every_seconds: int = Field(default=3600, ge=0)
    """It is read as a whole, at most this often."""


class ArrivalSettings(_Section):
    """Where labels arrive from besides the inbox."""

    s3: str | None = Field(default=None, pattern="^s3://[^/]+(/.*)?$")
    """`s3://bucket/prefix`: every folder under it is a batch, once `_SUCCESS` lies in it."""
    s3_endpoint_url: str | None = None
    """Of a server that speaks S3, where it is not Amazon's."""
    tables: TableSettings | None = None
    """Tables of a SQL database that are read for new and changed rows."""
    dynamodb: DynamoSettings | None = None
    """A DynamoDB table of words and labels; corrections can be written to it as well."""


class MerchantSettings(_Section):
    """Which names are one merchant, besides those that `merchants.yaml` in the home names."""

    merge_spellings: bool = True
    """Whether names that differ only in case, blanks, punctuation, accents, legal form or store
    number are one merchant."""
    merge_look_alikes: bool = True
    """Whether names that differ only in signs that OCR takes for each other are one merchant, too;
    `merge_spellings` off switches it off as well."""


class WebSettings(_Section):
    """Who may use the web UI that `harmonizer ui` serves."""

    allowed_origins: tuple[Origin, ...] = ()
    """Origins such as `https://labels.example.com` under which a proxy with authentication shows
    the web UI, besides the loopback interface. Pages of any other origin are refused."""


class RetentionSettings(_Section):
    """What a home keeps of its past: by age, and by size, the oldest going first."""

    run_days: int = Field(default=3, ge=0)
    """Runs that ended so many days ago lose their logs and events. The web UI keeps the latest
    materialization of each partition, and the tables keep everything."""
    run_mb: int = Field(default=200, ge=0)
    """Megabytes that the logs and events of ended runs may take."""
    report_days: int = Field(default=7, ge=0)
    """Reports older than this are removed, but for the latest."""
    report_mb: int = Field(default=100, ge=0)
    """Megabytes that reports may take."""
    batch_days: int = Field(default=90, ge=0)
    """Batches in `inbox/.done` older than this are removed. Those in `inbox/.failed` stay, since
    their rows are in no table and may be nowhere else: remove them by hand."""
    batch_mb: int = Field(default=1_000, ge=0)
    """Megabytes that they may take."""
    version_days: int = Field(default=7, ge=0)
    """Published versions of the tables older than this are removed, but for the latest; of a
    DuckLake, small files are put together then."""


class LimitSettings(_Section):
    """How large a row that arrives may be, and how much of a file is in memory at once."""

    max_value_bytes: int = Field(default=40_000, ge=1_000, le=10_000_000)
    """A row with a larger value is quarantined."""
    max_row_bytes: int = Field(default=50_000, ge=1_000, le=10_000_000)
    """A row, or a line of a CSV or NDJSON file, that is larger is quarantined and not kept in
    memory: 800 lines of 200 KB take less than 200 MB. Some thousand rows of this size are in memory
    at once; where they take more than 700 MB, the file is set aside."""
    max_bytes_in_flight: int = Field(default=32_000_000, ge=1_000_000)
    """Rows of a file that are read before they are stored; memory grows by a few times as much."""
    max_column_chunk_bytes: int = Field(default=256_000_000, ge=1_000_000)
    """Parquet only: a file is set aside when a column of one row group is larger uncompressed,
    since a single value may be as large. Memory grows by up to four times as much."""


class WaitSettings(_Section):
    """How long a process waits, in seconds, for another one of the home that holds a lock. Where
    others take it in between, the time starts again with each, but for a model."""

    database_seconds: float = Field(default=30.0, ge=0)
    """For `harmonizer.duckdb`, which one process at a time can write to."""
    vector_index_seconds: float = Field(default=30.0, ge=0)
    """For the vector index."""
    dagster_seconds: float = Field(default=30.0, ge=0)
    """For Dagster's instance to be opened."""
    model_seconds: float = Field(default=900.0, ge=0)
    """For a suspicion model to be fitted, which takes minutes with a million labels."""


class ReviewSettings(_Section):
    """How people's answers become corrections, besides what `review.yaml` in the home says."""

    settlement: Settlement = "majority"
    """Which answer counts where people disagree: that of the `majority`, or that of the `third` who
    answers."""
    brake_share: float = Field(default=0.2, ge=0, le=1)
    """An apply that would retire more of a merchant's labels than this share leaves that merchant
    alone."""
    brake_from: int = Field(default=20, ge=0)
    """Up to this many labels of a merchant may be retired at once in any case."""
    image_roots: tuple[str, ...] = ()
    """Folders, relative to the home, and addresses such as `https://images.example.com/receipts/`:
    only images that are named by the words' `image_uri` and lie there are shown. Links in a folder
    and redirects are not followed."""
    token_env: str | None = Field(default=None, pattern="^[A-Za-z_][A-Za-z0-9_]*$")
    """The environment variable that holds the token which the review page asks for. Without one the
    page is served under the names of the loopback interface only, not under `allowed_origins`."""

    @field_validator("image_roots")
    @classmethod
    def _are_folders_or_addresses(cls, roots: tuple[str, ...]) -> tuple[str, ...]:
        for root in roots:
            if not root or ("://" in root and not _ADDRESS.fullmatch(root)):
                raise ValueError(
                    f"{root!r} is neither a folder nor an address such as "
                    "https://images.example.com/receipts/"
                )
        return roots


BUDGETS: Final = ("budget_usd", "budget_tokens")
"""Those of `JudgeOverrides` that limit embeddings as well."""


@dataclass(frozen=True)
class JudgeOverrides:
    """The judge's settings that may be set for one run; None leaves a setting as the home has it.

    `described` returns their descriptions; `Settings.with_judge` checks the values.
    """

    profile: Profile | None = None
    budget_usd: float | None = None
    budget_tokens: int | None = None
    llm_batch_size: int | None = None
    max_requests_in_flight: int | None = None
    skip_high_confidence: bool | None = None
    keep_bought_answers: bool | None = None
    cache_scope: CacheScope | None = None
    max_label_type_concurrency: int | None = None
    max_merchant_concurrency: int | None = None
    max_word_concurrency: int | None = None

    @classmethod
    def described(cls) -> dict[str, FieldInfo]:
        """Return type, bounds, default and description of each, as `JudgeSettings` has them."""
        return {field.name: JudgeSettings.model_fields[field.name] for field in fields(cls)}

    def chosen(self) -> dict[str, Any]:
        """Return the overrides that are set."""
        return {name: value for name, value in asdict(self).items() if value is not None}


class Settings(_Section):
    """All settings of one home."""

    similarity: SimilaritySettings = SimilaritySettings()
    """How labels are compared and when similarity alone decides."""
    triage: TriageSettings = TriageSettings()
    """Which labels the `model` scorer decides without a judge."""
    embedding: EmbeddingSettings = EmbeddingSettings()
    """Which embedder turns documents into vectors."""
    index: IndexSettings = IndexSettings()
    """Where the vectors of documents are."""
    judge: JudgeSettings = JudgeSettings()
    """Who decides what similarity leaves open."""
    units: UnitSettings = UnitSettings()
    """Who computes `similarity_matches`: the run itself, or others, in units of whole merchants."""
    publish: PublishSettings = PublishSettings()
    """Where the tables are published after each run, as one version that is there as a whole."""
    checks: CheckSettings = CheckSettings()
    """When asset checks warn."""
    patterns: PatternSettings = PatternSettings()
    """Which recurring wrong labels are proposed as rules."""
    missing_labels: MissingLabelSettings = MissingLabelSettings()
    """Which words without a label are proposed for one."""
    evaluation: EvaluationSettings = EvaluationSettings()
    """What is known to be right or wrong, where it is."""
    arrivals: ArrivalSettings = ArrivalSettings()
    """Where labels arrive from besides the inbox."""
    merchants: MerchantSettings = MerchantSettings()
    """Which names are one merchant, besides those that `merchants.yaml` in the home names."""
    web: WebSettings = WebSettings()
    """Who may use the web UI that `harmonizer ui` serves."""
    retention: RetentionSettings = RetentionSettings()
    """What a home keeps of its past: by age, and by size, the oldest going first."""
    review: ReviewSettings = ReviewSettings()
    """How people's answers become corrections, besides what `review.yaml` in the home says."""
    limits: LimitSettings = LimitSettings()
    """How large a row that arrives may be, and how much of a file is in memory at once."""
    waits: WaitSettings = WaitSettings()
    """How long a process waits, in seconds, for another one of the home that holds a lock. Where
    others take it in between, the time starts again with each, but for a model."""

    def with_judge(self, overrides: JudgeOverrides | None = None, /, **chosen: Any) -> Settings:
        """Replace some of the judge's settings.

        Args:
            overrides: those of one run.
            chosen: any of the judge's settings by name; those that are None stay as they are.

        Raises:
            ConfigurationError: a value is out of range.
        """
        given = {name: value for name, value in chosen.items() if value is not None}
        if overrides is not None:
            given.update(overrides.chosen())
        try:
            judge = JudgeSettings.model_validate({**self.judge.model_dump(), **given})
        except ValidationError as error:
            raise ConfigurationError(first_problem(error)) from error
        return self.model_copy(update={"judge": judge})

    @classmethod
    def load(cls, path: Path) -> Settings:
        """Read settings from a TOML file; a missing file means defaults.

        Raises:
            ConfigurationError: the file is not TOML, or a value in it is unknown or out of range.
        """
        try:
            path.stat()
        except FileNotFoundError:
            return cls()
        except OSError as error:
            raise ConfigurationError(f"{path}: cannot be read ({error})") from error
        return load_config(path, cls)
