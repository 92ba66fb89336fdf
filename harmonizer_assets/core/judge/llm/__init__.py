"""The language-model path: from ambiguous labels to verdicts, each paid for once."""

from harmonizer_assets.core.judge.llm.batch.jobs import BatchJobs
from harmonizer_assets.core.judge.llm.batch.results import Collected
from harmonizer_assets.core.judge.llm.batch.table import (
    BatchJob,
    collected_partitions,
    forget_collected,
)
from harmonizer_assets.core.judge.llm.bought import BoughtAnswers
from harmonizer_assets.core.judge.llm.calls.sizing import MAX_CALL_WORDS
from harmonizer_assets.core.judge.llm.embeddings import EMBEDDINGS, EmbeddingMeter
from harmonizer_assets.core.judge.llm.judging import LLMJudge
from harmonizer_assets.core.judge.llm.lease import asking, asking_if_idle
from harmonizer_assets.core.judge.llm.memory.journal import recover, recover_if_idle
from harmonizer_assets.core.judge.llm.money.prices import Price, price_of
from harmonizer_assets.core.judge.llm.plan import Plan, make_plan
from harmonizer_assets.core.judge.llm.wire.answers import Answer
from harmonizer_assets.core.judge.llm.wire.endpoint import model_name, require_key
from harmonizer_assets.core.judge.llm.wire.prompt import PROMPT_VERSION

__all__ = [
    "EMBEDDINGS",
    "MAX_CALL_WORDS",
    "PROMPT_VERSION",
    "Answer",
    "BatchJob",
    "BatchJobs",
    "BoughtAnswers",
    "Collected",
    "EmbeddingMeter",
    "LLMJudge",
    "Plan",
    "Price",
    "asking",
    "asking_if_idle",
    "collected_partitions",
    "forget_collected",
    "make_plan",
    "model_name",
    "price_of",
    "recover",
    "recover_if_idle",
    "require_key",
]
