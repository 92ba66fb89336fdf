"""Models of a home: which one is in force, and when it is fitted anew."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Sequence
from typing import Any, Final

import duckdb
import filelock

from harmonizer_assets.core.errors import StoreBusyError
from harmonizer_assets.core.features import FEATURES_VERSION
from harmonizer_assets.core.fitting import (
    MIN_LABELS,
    FittedModel,
    fit_model,
    read_labels_with_pages,
    sampled_merchants,
)
from harmonizer_assets.core.home import Home
from harmonizer_assets.core.settings import TriageSettings
from harmonizer_assets.core.similar_words import SimilarWords
from harmonizer_assets.core.stages import merchant_fingerprints
from harmonizer_assets.core.warehouse import Warehouse

MODEL_VERSION: Final = "2"
DUE: Final = "due"
"""Version of a model that has still to be fitted."""
NO_MODEL: Final = "none"
"""Version where there are too few labels for a model."""

_LOCK_WAIT_SECONDS: Final = 900.0

_STATE: Final = """
SELECT count(*) AS labels, count(*) FILTER (WHERE validation_status = 'VALID') AS validated
FROM labels
"""

_LATEST: Final = "SELECT * FROM suspicion_models ORDER BY fitted_at DESC LIMIT 1"


class Models:
    """The model in force in a home.

    A model stays in force while labels arrive, so that old partitions need not be scored again for
    each new one; it is fitted anew when labels, or validated labels, have grown by the factor
    `triage.refit_growth`, and when settings, taxonomy or embedder have changed.
    """

    def __init__(
        self,
        home: Home,
        warehouse: Warehouse,
        label_types: Sequence[str],
        embedder: str,
        settings: TriageSettings,
    ) -> None:
        """Name the models of a home; nothing is read yet.

        Args:
            home: the home folder.
            warehouse: of the home.
            label_types: the taxonomy's names.
            embedder: name and version of the embedder.
            settings: of the thresholds.
        """
        self._home = home
        self._warehouse = warehouse
        self._label_types = tuple(label_types)
        self._settings = settings
        content = [MODEL_VERSION, FEATURES_VERSION, label_types, embedder, settings.model_dump()]
        self._identity = hashlib.sha256(json.dumps(content).encode()).hexdigest()[:16]
        self._loaded: tuple[str, FittedModel] | None = None

    def version(self) -> str:
        """The version in force, `DUE` when one has to be fitted, `NO_MODEL` with too few labels."""
        row, state = self._warehouse.read(lambda con: (_one(con, _LATEST), _one(con, _STATE)))
        return self._version_in_force(row, state)

    def _version_in_force(self, row: dict[str, Any] | None, state: dict[str, Any] | None) -> str:
        if state is None or state["labels"] < MIN_LABELS:
            return NO_MODEL
        growth = self._settings.refit_growth
        if (
            row is None
            or row["identity"] != self._identity
            or state["labels"] >= growth * row["labels"]
            or state["validated"] >= growth * max(row["validated"], self._settings.least_validated)
            or (
                # The first validated labels that suffice for a promise are worth a fit.
                row["validated"] < self._settings.least_validated <= state["validated"]
            )
            or not self._home.model_file(row["version"]).exists()
        ):
            return DUE
        return str(row["version"])

    def latest(self) -> dict[str, Any] | None:
        """What is known of the model that was fitted last: a row of `suspicion_models`."""
        return self._warehouse.read(lambda con: _one(con, _LATEST))

    def ensure(
        self,
        similar_words: Callable[[], SimilarWords],
        on_wait: Callable[[], None] | None = None,
        *,
        refit: bool = False,
    ) -> tuple[str, FittedModel | None]:
        """The model in force, fitted first where one is due.

        Args:
            similar_words: makes the gatherer of similar words' votes; called for a fit only.
            on_wait: called once when another process is fitting.
            refit: fit although none is due.

        Raises:
            StoreBusyError: another process has been fitting for a quarter of an hour.
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
        lock = filelock.FileLock(self._home.locks / "model.lock")
        try:
            lock.acquire(timeout=0)
        except filelock.Timeout:
            if on_wait is not None:
                on_wait()
            try:
                lock.acquire(timeout=_LOCK_WAIT_SECONDS)
            except filelock.Timeout:
                raise StoreBusyError(
                    "another process has been fitting a model for a quarter of an hour: wait for "
                    "it or end it, then run again"
                ) from None
        try:
            version = self.version()
            if version in (DUE, NO_MODEL) or refit:
                version = self._fit(similar_words())
            return version
        finally:
            lock.release()

    def _fit(self, similar_words: SimilarWords) -> str:
        began = time.monotonic()
        labels, page, prints, state = self._warehouse.read(self._read)
        model = fit_model(similar_words, labels, page, self._settings)
        content = json.dumps([self._identity, sorted(prints.items())])
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
                f"INSERT INTO suspicion_models ({names}, fitted_at) VALUES ({values}, now())", row
            )

        self._warehouse.write(record)
        self._loaded = version, model
        return version

    def _read(self, con: duckdb.DuckDBPyConnection) -> tuple[Any, Any, dict[str, str], Any]:
        merchants = sampled_merchants(con)
        labels, page = read_labels_with_pages(con, merchants, self._label_types)
        return labels, page, merchant_fingerprints(con, merchants), _one(con, _STATE)


def _one(con: duckdb.DuckDBPyConnection, sql: str) -> dict[str, Any] | None:
    rows = con.execute(sql).to_arrow_table().to_pylist()
    return rows[0] if rows else None
