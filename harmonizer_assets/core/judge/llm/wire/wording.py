"""Wording: how one model is asked, in the dialect that its endpoint takes."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from typing import Any

import duckdb

from harmonizer_assets.core.base.settings import JudgeSettings
from harmonizer_assets.core.judge.llm.wire.complaints import Complaint
from harmonizer_assets.core.judge.llm.wire.dialect import Dialect, read_dialect, store_dialect
from harmonizer_assets.core.judge.llm.wire.endpoint import UnsupportedParameterError
from harmonizer_assets.core.judge.llm.wire.prompt import PROMPT_VERSION, Prompts
from harmonizer_assets.core.records.taxonomy import Taxonomy
from harmonizer_assets.core.store.warehouse import Warehouse

_log = logging.getLogger(__name__)


class Wording:
    """The prompts and parameters of all questions to one model, and what identifies them.

    The dialect of the endpoint is read from the home when it is needed first. It changes when the
    endpoint refuses a parameter by its name, and is stored with the first answers.
    """

    def __init__(
        self,
        warehouse: Warehouse,
        settings: JudgeSettings,
        taxonomy: Taxonomy,
        model: str,
        dialect: Dialect | None = None,
    ) -> None:
        """Word the questions to a model; `dialect` is that of the present endpoint by default."""
        self._warehouse = warehouse
        self._settings = settings
        self._taxonomy = taxonomy
        self._model = model
        self._dialect: Dialect | None = None
        self._known = False
        self._usual = self._write_prompts(Dialect())
        self._prompts = self._usual
        if dialect is not None:
            self._speak(dialect)

    @property
    def model(self) -> str:
        """The model that is asked."""
        return self._model

    @property
    def dialect(self) -> Dialect:
        """How the endpoint is asked."""
        return self._dialect or self._read()

    @property
    def is_known(self) -> bool:
        """Whether the endpoint has answered in this dialect; if not, it may have to change."""
        self._read()
        return self._known

    @property
    def prompts(self) -> Prompts:
        """Writes the questions."""
        self._read()
        return self._prompts

    @property
    def answer_identity(self) -> str:
        """Return an identity of everything besides the question that an answer depends on."""
        return self._identity(self.prompts) + self.dialect.identity

    @property
    def usual_identity(self) -> str:
        """Return the identity without the dialect.

        An endpoint determines its dialect, so what a run learns about it while it asks must not
        make the rows of that run stale.
        """
        return self._identity(self._usual)

    def parameters(self) -> dict[str, Any]:
        """Return the parameters of all requests, besides model, messages and length."""
        parameters: dict[str, Any] = {"response_format": self.prompts.response_format}
        if self._settings.temperature != "default":
            parameters["temperature"] = self._settings.temperature
        if self._settings.reasoning_effort is not None:
            parameters["reasoning_effort"] = self._settings.reasoning_effort
        return self.dialect.sent(parameters)

    def adapt(self, refused: UnsupportedParameterError) -> None:
        """Ask without a parameter that the endpoint has refused by its name, from now on.

        Raises:
            UnsupportedParameterError: that has been tried, and there is no other way.
        """
        adapted = self.dialect.without(refused.parameter)
        if adapted is None:
            raise refused
        _log.info("the endpoint does not take %s: asking in another way", refused.parameter)
        self._known = False
        self._speak(adapted)

    def learn(self, complaints: Iterable[Complaint]) -> None:
        """Learn from calls of a batch job that the endpoint has rejected, for the next ones."""
        if self.is_known:
            # It has answered in this dialect since; the complaints are about an earlier one.
            return
        sent = (self.dialect.length, *self.parameters())
        for complaint in complaints:
            parameter = complaint.unsupported(sent)
            adapted = self.dialect.without(parameter) if parameter else None
            if adapted is not None:
                _log.info("the endpoint does not take %s: asking in another way", parameter)
                self._speak(adapted)
                self._warehouse.write(self.remember)
                return

    def remember(self, con: duckdb.DuckDBPyConnection) -> None:
        """Store the dialect as one in which the endpoint has answered, inside a transaction."""
        store_dialect(con, self._model, self.dialect)
        self._known = True

    def _read(self) -> Dialect:
        if self._dialect is None:
            found = self._warehouse.read(lambda con: read_dialect(con, self._model))
            self._known = found is not None
            self._speak(found or Dialect())
        return self._dialect or Dialect()

    def _speak(self, dialect: Dialect) -> None:
        self._prompts = self._write_prompts(dialect)
        self._dialect = dialect

    def _write_prompts(self, dialect: Dialect) -> Prompts:
        return Prompts(
            self._taxonomy,
            self._settings.cache_scope,
            self._settings.explanations,
            shows_schema=dialect.answers != "schema",
        )

    def _identity(self, prompts: Prompts) -> str:
        settings = self._settings
        parameters = f"temperature={settings.temperature},effort={settings.reasoning_effort}"
        return f"openai/{self._model}/{parameters}/{PROMPT_VERSION}/{prompts.request_hash}"
