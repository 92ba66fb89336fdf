"""Models of a home: which one is in force, and when it is refitted."""

from __future__ import annotations

import hashlib
import json
import logging
import time
from collections.abc import Callable, Sequence
from typing import Any, Final

import duckdb

from harmonizer_assets.core.base.files import remove
from harmonizer_assets.core.base.home import Home
from harmonizer_assets.core.base.locks import Lock
from harmonizer_assets.core.base.settings import TriageSettings, WaitSettings
from harmonizer_assets.core.records.label import WORD_COLUMNS
from harmonizer_assets.core.score.features import FEATURES_VERSION
from harmonizer_assets.core.score.fitting import (
    MIN_LABELS,
    FittedModel,
    fit_model,
    read_sample,
)
from harmonizer_assets.core.score.similar_words import SimilarWords
from harmonizer_assets.core.stages.state import merchant_fingerprints
from harmonizer_assets.core.store.numbers import newest_first, next_number
from harmonizer_assets.core.store.warehouse import Warehouse

_log = logging.getLogger(__name__)

MODEL_VERSION: Final = "5"
DUE: Final = "due"
"""Version of a model that is not fitted yet."""
NO_MODEL: Final = "none"
"""Version where there are too few labels for a model."""

_SECONDS_KEPT: Final = 86_400.0

NO_GUARANTEE: Final = "no guarantee: fixed thresholds on the votes of similar words"

_STATE: Final = f"""
SELECT count(*) AS labels, count(*) FILTER (WHERE validation_status = 'VALID') AS validated
FROM labels SEMI JOIN words USING ({WORD_COLUMNS})
"""
"""The labels that a model can be fitted on: the words of others have not arrived."""

_LATEST: Final = f"SELECT * FROM suspicion_models ORDER BY {newest_first('fitted_at')} LIMIT 1"


class Models:
    """The model in force in a home.

    A model stays in force while labels arrive, so that old partitions need not be scored again for
    each new one; it is refitted when labels, or validated labels, have grown by the factor
    `triage.refit_growth`, and when settings, taxonomy or embedder have changed.
    """

    def __init__(
        self,
        home: Home,
        warehouse: Warehouse,
        label_types: Sequence[str],
        embedder: str,
        settings: TriageSettings,
        wait_seconds: float = WaitSettings().model_seconds,
    ) -> None:
        """Identify the models of a home, without reading anything.

        Args:
            home: the home folder.
            warehouse: of the home.
            label_types: the taxonomy's names.
            embedder: name and version of the embedder.
            settings: of the thresholds.
            wait_seconds: how long to wait for another process that fits a model.
        """
        self._home = home
        self._wait_seconds = wait_seconds
        self._warehouse = warehouse
        self.label_types = tuple(label_types)
        self._settings = settings
        content = [MODEL_VERSION, FEATURES_VERSION, label_types, embedder, settings.model_dump()]
        self._identity = hashlib.sha256(json.dumps(content).encode()).hexdigest()[:16]
        self._loaded: tuple[str, FittedModel] | None = None

    def version(self) -> str:
        """Return the version in force, `DUE` for a fit, `NO_MODEL` with too few labels."""
        row, state = self._latest_and_state()
        if state["labels"] < MIN_LABELS:
            return NO_MODEL
        return DUE if row is None or self._why_due(row, state) else str(row["version"])

    def _latest_and_state(self) -> tuple[dict[str, Any] | None, dict[str, Any]]:
        return self._warehouse.read(lambda con: (_one(con, _LATEST), _counted(con)))

    def _why_due(self, row: dict[str, Any] | None, state: dict[str, Any]) -> str:
        """Return why a model has to be fitted; empty where the last one stays in force."""
        if row is None:
            return "there is none yet"
        growth, enough = self._settings.refit_growth, self._settings.least_validated
        reasons = {
            "taxonomy, embedder or settings have changed": row["identity"] != self._identity,
            "labels have grown": state["labels"] >= growth * row["labels"],
            "validated labels have grown": state["validated"]
            >= growth * max(row["validated"], enough),
            # The first validated labels that suffice for a guarantee are worth a fit.
            "validated labels now suffice for a guarantee": row["validated"]
            < enough
            <= state["validated"],
            "its file is gone": not self._home.model_file(row["version"]).exists(),
        }
        return next((reason for reason, holds in reasons.items() if holds), "")

    def latest(self) -> dict[str, Any] | None:
        """Read the row of `suspicion_models` of the model that was fitted last."""
        return self._warehouse.read(lambda con: _one(con, _LATEST))

    def guarantee(self) -> str:
        """Describe the guarantee on labels that no judge is asked about, in one sentence.

        Without a model, it says why there is none.
        """
        row, state = self._latest_and_state()
        if state["labels"] < MIN_LABELS:
            return (
                f"no guarantee: too few labels to fit a model on ({state['labels']:,}, and "
                f"{MIN_LABELS} are needed), so that similar words alone decide"
            )
        if row is None:
            return NO_GUARANTEE
        if row["accepted_wrong_bound"] is None:
            return f"no guarantee: {row['reason']}"
        guarantee = (
            f"at most {row['accepted_wrong_bound']:.2%} of the accepted labels are wrong (aim "
            f"{self._settings.alpha:.1%}, {self._settings.confidence:.0%} confidence, from "
            f"{row['validated']:,} validated labels"
        )
        if row["rejected_right_level"] is None:
            return f"{guarantee}); none is rejected without a question"
        return f"{guarantee}); at most {row['rejected_right_level']:.1%} of the rejected are right"

    def ensure(
        self,
        similar_words: Callable[[], SimilarWords],
        on_wait: Callable[[], None] | None = None,
        *,
        refit: bool = False,
    ) -> tuple[str, FittedModel | None]:
        """Return the model in force, fitting it first where one is due.

        Args:
            similar_words: makes the gatherer of similar words' votes; called for a fit only.
            on_wait: called once when another process is fitting.
            refit: fit although none is due.

        Raises:
            StoreBusyError: another process has been fitting for longer than the settings allow.
            StoreError: the model's file cannot be written or read.
        """
        version = self.version()
        if version == NO_MODEL:
            return version, None
        if version == DUE or refit:
            version = self._fit_alone(similar_words, on_wait, refit=refit)
        if self._loaded is None or self._loaded[0] != version:
            self._loaded = version, FittedModel.load(self._home.model_file(version))
        return self._loaded

    def _fit_alone(
        self,
        similar_words: Callable[[], SimilarWords],
        on_wait: Callable[[], None] | None,
        *,
        refit: bool,
    ) -> str:
        lock = Lock(self._home.locks / "model.lock", "fitting a model", self._wait_seconds)
        with lock.held(on_wait):
            version = self.version()
            if version in (DUE, NO_MODEL) or refit:
                why = self._why_due(*self._latest_and_state()) or "as asked"
                version = self._fit(similar_words(), why)
            return version

    def _fit(self, similar_words: SimilarWords, why: str) -> str:
        began = time.monotonic()
        labels, page, fingerprints, state = self._warehouse.read(self._read)
        model = fit_model(similar_words, labels, page, self._settings)
        content = json.dumps([self._identity, sorted(fingerprints.items())])
        version = hashlib.sha256(content.encode()).hexdigest()[:16]
        model.save(self._home.model_file(version))
        thresholds = model.thresholds
        row = {
            "version": version,
            "identity": self._identity,
            **state,
            "fitted_labels": model.labels,
            "wrong_share": model.calibration.wrong_share,
            "accept_up_to": thresholds.accept,
            "reject_from": thresholds.reject,
            "accepted_wrong_bound": thresholds.accepted_wrong_bound,
            "rejected_right_level": thresholds.rejected_right_level,
            "reason": thresholds.reason,
            "seconds": time.monotonic() - began,
        }

        def record(con: duckdb.DuckDBPyConnection) -> None:
            con.execute("DELETE FROM suspicion_models WHERE version = $1", [version])
            names = ", ".join(row)
            values = ", ".join(f"${name}" for name in row)
            con.execute(
                f"INSERT INTO suspicion_models ({names}, fitted_at, number) "
                f"SELECT {values}, now(), {next_number('suspicion_models')}",
                row,
            )

        self._warehouse.write(record)
        self._remove_files_before(version)
        _log.info(
            "fitted model %s on %d labels in %.1f s (%s)",
            version,
            model.labels,
            row["seconds"],
            why,
        )
        self._loaded = version, model
        return version

    def forget(self) -> None:
        """Remove the files of all models, so that the next run fits one anew.

        Their rows in `suspicion_models` stay, which are counts and figures. A run that is about to
        read a model fails, and the next one goes on.
        """
        self._loaded = None
        for path in self._home.models.glob("*.npz"):
            remove(path)

    def _remove_files_before(self, version: str) -> None:
        """Remove the files of models that are no longer in force.

        Those of the last day stay: a run that began with one may still be about to read it.
        """
        in_force = self._home.model_file(version)
        for path in in_force.parent.glob(f"*{in_force.suffix}"):
            if path != in_force and time.time() - path.stat().st_mtime > _SECONDS_KEPT:
                remove(path)

    def _read(self, con: duckdb.DuckDBPyConnection) -> tuple[Any, Any, dict[str, str], Any]:
        labels, page = read_sample(con, self.label_types)
        merchants = labels["merchant_key"].unique().to_pylist()
        return labels, page, merchant_fingerprints(con, merchants), _counted(con)


def _counted(con: duckdb.DuckDBPyConnection) -> dict[str, Any]:
    return con.execute(_STATE).to_arrow_table().to_pylist()[0]


def _one(con: duckdb.DuckDBPyConnection, sql: str) -> dict[str, Any] | None:
    rows = con.execute(sql).to_arrow_table().to_pylist()
    return rows[0] if rows else None
