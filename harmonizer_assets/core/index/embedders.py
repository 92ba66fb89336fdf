"""Embedders turn documents into unit vectors."""

from __future__ import annotations

from contextlib import suppress
from functools import cache, cached_property
from typing import TYPE_CHECKING, Any, Final, Protocol

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from harmonizer_assets.core.base.clients import keep_clients_quiet
from harmonizer_assets.core.base.errors import ConfigurationError, HarmonizerError
from harmonizer_assets.core.base.secrets import translated
from harmonizer_assets.core.base.settings import EmbeddingSettings
from harmonizer_assets.core.index.documents import COLUMN_BINS, PLACE_BINS, UNKNOWN_PLACE
from harmonizer_assets.core.index.meter import Meter
from harmonizer_assets.core.records.account import token_count

if TYPE_CHECKING:
    from openai.types import CreateEmbeddingResponse

_SERVER_FAULT: Final = 500
"""HTTP status from which a fault is the server's: it may have done the work before it failed."""

Vectors = npt.NDArray[np.float32]


class Embedder(Protocol):
    """Turns documents into vectors of one fixed length."""

    @property
    def name(self) -> str:
        """Stable name of the embedder."""

    @property
    def version(self) -> str:
        """Version of the vectors: it changes when the same document gets another vector."""

    @property
    def dimensions(self) -> int:
        """Length of a vector."""

    def embed(self, documents: pa.Table, meter: Meter | None = None) -> Vectors:
        """Embed documents.

        Args:
            documents: n rows with the columns of the `documents` table.
            meter: is told of each call that costs something.

        Returns:
            Array of shape (n, dimensions), each row of Euclidean length 1.
        """


class _TextBlock:
    """Character or word n-grams, hashed, damped and projected to `dimensions` columns.

    Hashing: Weinberger et al. 2009, "Feature Hashing for Large Scale Multitask Learning".
    Projection: Johnson and Lindenstrauss 1984; cosines survive a Gaussian projection.
    """

    _FEATURES = 2**14

    def __init__(self, dimensions: int, seed: int, *, analyzer: str, ngrams: tuple[int, int]):
        # Importing scikit-learn takes longer than a run that has nothing to embed.
        from sklearn.feature_extraction.text import HashingVectorizer

        self._hash = HashingVectorizer(
            analyzer=analyzer, ngram_range=ngrams, n_features=self._FEATURES, alternate_sign=False
        )
        self._projection = _gaussian(seed, self._FEATURES, dimensions)

    def __call__(self, texts: pa.ChunkedArray) -> Vectors:
        encoded = texts.combine_chunks().dictionary_encode()
        hashed = self._hash.transform(encoded.dictionary.to_pylist())
        hashed.data = np.sqrt(hashed.data)
        unique = _unit_rows(np.asarray(hashed @ self._projection, dtype=np.float32))
        return unique[encoded.indices.to_numpy(zero_copy_only=False)]


@cache
def _gaussian(seed: int, rows: int, columns: int) -> Vectors:
    # RandomState's streams never change (NEP 19); default_rng's may.
    drawn = np.random.RandomState(seed).standard_normal((rows, columns)).astype(np.float32)
    drawn.setflags(write=False)
    return drawn


def _unit_rows(vectors: Vectors) -> Vectors:
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    return vectors / np.maximum(lengths, np.float32(1e-12))


def _soft_bins(bins: npt.NDArray[np.integer], count: int, width: float) -> Vectors:
    """Spread places over `count` bins by a Gaussian; unknown places become all zeros."""
    values = (bins.astype(np.float32) + 0.5) / count
    centers = np.linspace(0.0, 1.0, count, dtype=np.float32)
    bumps = np.exp(-((values[:, None] - centers) ** 2) / (2 * width**2))
    bumps[bins == UNKNOWN_PLACE] = 0.0
    return bumps.astype(np.float32)


class LocalEmbedder:
    """Embeds text, shape, row and place; needs neither network nor model file.

    The vector is the concatenation of unit blocks (masked text, left and right neighbours, row,
    place), so its cosine is the weighted mean of the blocks' cosines.
    """

    name: Final = "local"
    version: Final = "1"
    _MASK, _LEFT, _ROW, _RIGHT = 64, 48, 48, 32
    _PLACE = 3 * PLACE_BINS + COLUMN_BINS
    _WEIGHTS: Final = {"mask": 2.0, "left": 0.7, "row": 0.7, "right": 0.3, "place": 1.0}
    dimensions: Final = _MASK + _LEFT + _ROW + _RIGHT + _PLACE

    @cached_property
    def _text_blocks(self) -> dict[str, tuple[str, _TextBlock]]:
        """Return the blocks by name, each with the column that it embeds."""
        return {
            "mask": ("mask", _TextBlock(self._MASK, 1, analyzer="char_wb", ngrams=(1, 4))),
            "left": ("left_context", _TextBlock(self._LEFT, 2, analyzer="char_wb", ngrams=(1, 3))),
            "row": ("row_context", _TextBlock(self._ROW, 4, analyzer="word", ngrams=(1, 1))),
            "right": (
                "right_context",
                _TextBlock(self._RIGHT, 3, analyzer="char_wb", ngrams=(1, 3)),
            ),
        }

    def embed(self, documents: pa.Table, meter: Meter | None = None) -> Vectors:
        """Embed documents; see `Embedder.embed`. It costs nothing."""
        if documents.num_rows == 0:
            return np.empty((0, self.dimensions), dtype=np.float32)

        def bins(column: str) -> npt.NDArray[np.integer]:
            return documents[column].to_numpy()

        place = np.hstack(
            [
                _soft_bins(bins("y_bin"), PLACE_BINS, 0.12),
                _soft_bins(bins("x_bin"), PLACE_BINS, 0.12),
                _soft_bins(bins("row_bin"), PLACE_BINS, 0.12),
                _soft_bins(bins("column_bin"), COLUMN_BINS, 0.20),
            ]
        )
        blocks = {
            name: block(documents[column]) for name, (column, block) in self._text_blocks.items()
        }
        blocks["place"] = _unit_rows(place)
        return _unit_rows(
            np.hstack([np.float32(self._WEIGHTS[name] ** 0.5) * blocks[name] for name in blocks])
        )


class OpenAIEmbedder:
    """Embeds a document's text through any endpoint that speaks the OpenAI embeddings API."""

    name: Final = "openai"
    _BATCH = 512
    _PLACES = ("first", "second", "third", "fourth", "fifth", "sixth", "seventh", "last")

    def __init__(self, model: str, dimensions: int) -> None:
        """Connect to the endpoint that the environment names.

        Raises:
            ConfigurationError: OPENAI_API_KEY is not set.
        """
        import openai

        keep_clients_quiet()
        self._model = model
        self.dimensions = dimensions
        self._refused = openai.APIStatusError
        with translated(
            lambda _: ConfigurationError(
                "the openai embedder needs a key: set OPENAI_API_KEY "
                "(and OPENAI_BASE_URL for another endpoint), or use the local embedder"
            )
        ):
            self._client = openai.OpenAI()

    @property
    def version(self) -> str:
        """Model and length of a vector; changing either changes every vector."""
        return f"{self._model}/{self.dimensions}"

    def embed(self, documents: pa.Table, meter: Meter | None = None) -> Vectors:
        """Embed documents; see `Embedder.embed`.

        Raises:
            BudgetReached: the meter allows no further call.
            HarmonizerError: the endpoint failed or answered with vectors of another length.
        """
        rows = documents.select(["mask", "row_context", "y_bin"]).to_pylist()
        texts = [self._render(row) for row in rows]
        vectors = np.empty((len(texts), self.dimensions), dtype=np.float32)
        for start in range(0, len(texts), self._BATCH):
            batch = texts[start : start + self._BATCH]
            with translated(
                lambda error, done=start: HarmonizerError(  # type: ignore[misc]
                    f"embedding failed after {done} of {len(texts)} documents: {_why(error)}; run "
                    "again to continue"
                )
            ):
                answer = self._ask(batch, meter)
            for index, embedding in self._read(answer, len(batch)).items():
                if len(embedding) != self.dimensions:
                    raise HarmonizerError(
                        f"{self._model} answered with {len(embedding)} dimensions "
                        f"instead of {self.dimensions}: set embedding.openai_dimensions"
                    )
                vectors[start + index] = embedding
        return _unit_rows(vectors)

    def _read(self, answer: CreateEmbeddingResponse, asked: int) -> dict[int, list[float]]:
        """Read the embedding of each text that was asked about, by its index.

        Raises:
            HarmonizerError: the answer is another one.
        """
        found = {item.index: item.embedding for item in answer.data}
        if found.keys() != set(range(asked)) or len(answer.data) != asked:
            raise HarmonizerError(
                f"{self._model} does not answer about each of {asked} texts once: nothing of it is "
                "kept; run again to continue"
            )
        return found

    def _ask(self, texts: list[str], meter: Meter | None) -> CreateEmbeddingResponse:
        # Byte-level tokenizers make one token per byte at most; each attempt may count.
        attempts = 1 + self._client.max_retries
        most = attempts * sum(len(text.encode()) for text in texts)
        reserved = None if meter is None else meter.reserve(most)
        used: int | None = None
        try:
            answer = self._client.embeddings.create(
                model=self._model, input=texts, dimensions=self.dimensions
            )
            told = answer.usage.prompt_tokens if answer.usage else None
            with suppress(ValueError):
                used = None if told is None else token_count(told)
        except self._refused as error:
            # What the endpoint does not take it does not charge.
            used = 0 if error.status_code < _SERVER_FAULT else None
            raise
        finally:
            if meter is not None:
                meter.settle(reserved, used)
        return answer

    @classmethod
    def _render(cls, row: dict[str, Any]) -> str:
        known = row["y_bin"] < len(cls._PLACES)
        where = f" in the {cls._PLACES[row['y_bin']]} eighth of the receipt" if known else ""
        return f"{row['mask'] or '-'} | on the row: {row['row_context']}{where}"


def _why(error: Exception) -> str:
    """Name an error; the client's own code fails where it is given something else than JSON."""
    if isinstance(error, AttributeError | TypeError | ValueError):
        return (
            "the endpoint answers with something else than embeddings (check OPENAI_BASE_URL, and "
            "whether the network wants a login)"
        )
    return type(error).__name__


def make_embedder(settings: EmbeddingSettings) -> Embedder:
    """Make the embedder that the settings name.

    Raises:
        ConfigurationError: it needs a key that the environment does not hold.
    """
    if settings.embedder == "openai":
        return OpenAIEmbedder(settings.openai_model, settings.openai_dimensions)
    return LocalEmbedder()
