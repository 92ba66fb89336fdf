"""Partitions between their questions and their verdicts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from harmonizer_assets.core.base.settings import JudgeSettings
from harmonizer_assets.core.judge.llm.calls.work import PartitionWork
from harmonizer_assets.core.judge.llm.confidence import suggestion_confidence
from harmonizer_assets.core.judge.llm.memory.cache import in_batch_jobs, look_up
from harmonizer_assets.core.judge.llm.memory.carried import Carried, settle_carried
from harmonizer_assets.core.judge.llm.wire.answers import Answer
from harmonizer_assets.core.judge.llm.wire.prompt import Ask, Prompts
from harmonizer_assets.core.judge.questions import ChunkQuestions, read_questions
from harmonizer_assets.core.judge.verdicts import NOT_ASKED, PartitionVerdicts, unresolved
from harmonizer_assets.core.records.label import DeadLetter, LabelKey, Question, Verdict
from harmonizer_assets.core.records.partition import PartitionKey
from harmonizer_assets.core.score.unknown import NO_WORD
from harmonizer_assets.core.stages.stage import Chunk
from harmonizer_assets.core.store.warehouse import Warehouse


@dataclass
class PreparedPartition:
    """One partition between its questions and its verdicts.

    Attributes:
        questions: one per label that is to be judged.
        without_word: verdicts on labels whose word has not arrived.
        unasked: labels that are not worth a question, unless an answer has been bought before.
        skipped: how many labels similar words or a rule decide.
        labels: how many labels it has in all.
        fingerprint: of the merchant's labels.
        keys: of the questions, in their order.
        cached: answers from the answer cache, by key.
        asks: questions without a cached answer, by key.
    """

    key: PartitionKey
    questions: Sequence[Question]
    without_word: list[Verdict]
    unasked: set[LabelKey]
    skipped: int
    labels: int
    fingerprint: str
    keys: list[str] = field(default_factory=list)
    cached: dict[str, Answer] = field(default_factory=dict)
    asks: dict[str, Ask] = field(default_factory=dict)

    def answer(self, verdict_key: str) -> Answer | None:
        """Return the answer to a question, from the answer cache or from this run."""
        ask = self.asks.get(verdict_key)
        return self.cached.get(verdict_key) or (ask.answer if ask else None)

    def take(self, cached: Mapping[str, Answer]) -> None:
        """Take the cached answers; leave out labels that are not open and have none."""
        self.cached = {key: cached[key] for key in self.keys if key in cached}
        kept = [
            (question, key)
            for question, key in zip(self.questions, self.keys, strict=True)
            if question.is_open or key in self.cached
        ]
        self.questions = [question for question, _ in kept]
        bought = {question.key for question in self.questions if not question.is_open}
        self.skipped -= len(bought - self.unasked)
        self.unasked = self.unasked - bought
        self.keys = [key for _, key in kept]
        asked = {*self.keys}.difference(self.cached)
        self.asks = {key: ask for key, ask in self.asks.items() if key in asked}

    def work(self) -> PartitionWork:
        """Return the questions that have to be asked now."""
        return PartitionWork(self.key, [ask for ask in self.asks.values() if not ask.given_up])

    def is_deferred(self) -> bool:
        """Return whether a question was left to a later run."""
        return any(ask.deferred for ask in self.asks.values())

    def verdicts(self, looks: Mapping[LabelKey, Answer]) -> PartitionVerdicts:
        """Make a verdict for each question, and a dead letter for each without an answer.

        Args:
            looks: answers on a second look, by label.
        """
        made = PartitionVerdicts(
            self.key, [*self.without_word, *unresolved(sorted(self.unasked), NOT_ASKED)]
        )
        told: set[str] = set()
        for question, key in zip(self.questions, self.keys, strict=True):
            answer, ask = self.answer(key), self.asks.get(key)
            if answer:
                fresh = ask is not None and not ask.shared and key not in told
                told.add(key)
                look = looks.get(question.key)
                made.verdicts.append(verdict_of(question, key, answer, look, fresh=fresh))
                continue
            assert ask is not None
            reason = ask.error if ask.deferred else f"not judged: {ask.error}"
            made.verdicts.append(Verdict(question.key, None, "unresolved", reasoning=reason))
            if not ask.deferred:
                made.dead_letters.append(DeadLetter(question.key, ask.error, ask.calls))
        return made


class Preparer:
    """Reads the questions of chunks and their cached answers."""

    def __init__(
        self,
        warehouse: Warehouse,
        settings: JudgeSettings,
        prompts: Prompts,
        identity: str,
        model: str,
    ) -> None:
        """Prepare questions for one model.

        Args:
            warehouse: of the home.
            settings: of the judge.
            prompts: writes the questions.
            identity: everything besides the question that an answer depends on.
            model: that is asked.
        """
        self._warehouse = warehouse
        self._model = model
        self._all_labels = not settings.skip_high_confidence
        self._bought = settings.keep_bought_answers
        self._prompts = prompts
        self._identity = identity

    def prepare(self, chunk: Chunk) -> list[PreparedPartition]:
        """Read a chunk's questions and their cached answers, each in one query."""
        asked = self._warehouse.read(
            lambda con: read_questions(con, chunk, all_labels=self._all_labels, bought=self._bought)
        )
        prepared = [self._partition(chunk, key, asked) for key in chunk.partitions]
        self._settle(prepared)
        return self._with_cached(prepared)

    def prepare_questions(
        self, key: PartitionKey, questions: Sequence[Question]
    ) -> PreparedPartition:
        """Read the cached answers to questions about words that carry no label.

        Args:
            key: of the usage.
            questions: that are all open.
        """
        partition = PreparedPartition(key, questions, [], set(), 0, len(questions), "")
        [prepared] = self._with_cached([self._worded(partition)])
        return prepared

    def _with_cached(self, prepared: list[PreparedPartition]) -> list[PreparedPartition]:
        wanted = sorted({key for partition in prepared for key in partition.keys})
        cached, coming = self._warehouse.read(
            lambda con: (look_up(con, wanted), in_batch_jobs(con))
        )
        for partition in prepared:
            partition.take(cached)
            for key, ask in partition.asks.items():
                if key in coming:
                    ask.given_up = ask.deferred = True
                    ask.error = "waits for the answer of a batch"
        return prepared

    def _settle(self, prepared: Sequence[PreparedPartition]) -> None:
        """Let the answers that came along with moved labels be found under the present keys."""
        carried = [
            Carried(question, key)
            for partition in prepared
            for question, key in zip(partition.questions, partition.keys, strict=True)
            if question.carried_answer is not None
        ]
        if carried:
            self._warehouse.write(lambda con: settle_carried(con, carried, self._model))

    def _partition(
        self, chunk: Chunk, key: PartitionKey, asked: ChunkQuestions
    ) -> PreparedPartition:
        questions = asked.questions[key]
        partition = PreparedPartition(
            key,
            questions,
            unresolved(asked.without_word[key], NO_WORD),
            asked.unasked[key],
            asked.skipped.get(key, 0),
            chunk.labels[key],
            asked.fingerprints.get(key.merchant_key, ""),
        )
        return self._worded(partition)

    def _worded(self, partition: PreparedPartition) -> PreparedPartition:
        """Word the questions of a partition."""
        questions = partition.questions
        if questions:
            head = self._prompts.head([one for one in questions if one.is_open] or questions)
            asks = [self._prompts.ask(question, head, self._identity) for question in questions]
            partition.keys = [ask.verdict_key for ask in asks]
            # The same question about several words is one question.
            partition.asks = {ask.verdict_key: ask for ask in asks}
        return partition


def verdict_of(
    question: Question, key: str, answer: Answer, look: Answer | None = None, *, fresh: bool = False
) -> Verdict:
    """Make the verdict on a label from the answer to its question.

    Args:
        question: about the label.
        key: of the question in the answer cache.
        answer: to it.
        look: the answer on a second look at what the first one suggests.
        fresh: whether this run has asked it.
    """
    refuted = look is not None and look.is_outlier
    explained = _explained(answer, question)
    if refuted:
        explained = f"{explained}; on a second look {answer.suggested_label} is wrong, too"
    return Verdict(
        question.key,
        answer.is_outlier,
        "llm" if fresh else "cache",
        None if refuted else answer.suggested_label,
        answer.confidence,
        explained,
        key,
        None if refuted else suggestion_confidence(answer, question, confirmed=look is not None),
    )


def _explained(answer: Answer, question: Question) -> str | None:
    """Join the model's reason with the probabilities by similar words."""
    if not answer.is_outlier:
        return answer.reasoning
    odds = ", ".join(f"{name} {chance:.2f}" for name, chance in question.alternatives.items())
    said = answer.reasoning or "the model finds the label wrong"
    return f"{said}; similar words: {odds}" if odds else said
