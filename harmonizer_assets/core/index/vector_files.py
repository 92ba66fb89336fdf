"""Vectors in files: what a backup holds of an index that is not in the home."""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from harmonizer_assets.core.base.errors import StoreError
from harmonizer_assets.core.base.files import make_private_folder, write_atomically
from harmonizer_assets.core.index.embedders import Vectors

VectorPage = tuple[list[str], Vectors, list[Mapping[str, Any]]]
"""n document ids, their vectors (n, dimensions), and their metadata."""

_COLLECTION: Final = b"collection"


def write_pages(folder: Path, collection: str, pages: Iterable[VectorPage]) -> None:
    """Write a file for each page, named by its content; the folder is made.

    Args:
        folder: of the files.
        collection: whose vectors they are; it identifies the embedder.
        pages: of the index.
    """
    make_private_folder(folder)
    for ids, vectors, metadatas in pages:
        table = pa.table(
            {
                "document_id": pa.array(ids, pa.string()),
                "vector": pa.FixedSizeListArray.from_arrays(
                    pa.array(vectors.ravel(), pa.float32()), vectors.shape[1]
                ),
                "metadata": pa.array([json.dumps(row, sort_keys=True) for row in metadatas]),
            }
        ).replace_schema_metadata({_COLLECTION: collection.encode()})
        sink = io.BytesIO()
        pq.write_table(table, sink)
        content = sink.getvalue()
        name = f"{hashlib.sha256(content).hexdigest()[:32]}.parquet"
        write_atomically(folder / name, content)


def read_pages(folder: Path, collection: str) -> Iterator[VectorPage]:
    """Read the pages of a collection; those of others are passed over.

    Raises:
        StoreError: a file is damaged.
    """
    for file in sorted(folder.glob("*.parquet")):
        try:
            table = pq.read_table(file)
        except (pa.ArrowException, OSError) as error:
            raise StoreError(
                f"{file} is damaged: delete it, and the next run embeds its documents again"
            ) from error
        if (table.schema.metadata or {}).get(_COLLECTION) != collection.encode():
            continue
        vectors = table["vector"].combine_chunks()
        yield (
            table["document_id"].to_pylist(),
            np.asarray(vectors.flatten(), dtype=np.float32).reshape(len(table), -1),
            [json.loads(row) for row in table["metadata"].to_pylist()],
        )
