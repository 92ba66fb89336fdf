"""Homes that ask the same at the same time, with one cache of answers: how often each is bought.

    python -m benchmarks.shared_answers
    python -m benchmarks.shared_answers --caches dynamodb --homes 4 --words 200

Each home asks a simulated endpoint about the same words, in a thread of its own. PostgreSQL has to
run; DynamoDB is that of moto's server, in this process.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import boto3

from harmonizer_assets.core.base.home import Home
from harmonizer_assets.core.base.settings import Settings
from harmonizer_assets.core.pipeline import Pipeline
from harmonizer_assets.core.records.options import RunOptions
from harmonizer_tests.support.aws import aws_server
from harmonizer_tests.support.environment import AWS, KEY, MODEL
from harmonizer_tests.support.homes import keep_homes_in
from harmonizer_tests.support.labels import scored_copy
from harmonizer_tests.support.postgres import temporary_database
from harmonizer_tests.support.simulated_endpoint import simulated_endpoint

CACHES = ("postgresql", "dynamodb", "duckdb")
FAST = {"first_token_seconds": 0.02, "tokens_per_second": 20_000.0}
LABEL_TYPES = 2


@contextmanager
def cache_of(kind: str, folder: Path) -> Iterator[str]:
    """Make an empty cache; yield its URL."""
    if kind == "duckdb":
        yield f"duckdb://{folder}/answers.duckdb"
    elif kind == "postgresql":
        with temporary_database() as url:
            yield url
    else:
        with aws_server(empty=True) as url:
            os.environ.update({**AWS, "AWS_ENDPOINT_URL": url})
            boto3.client("dynamodb").create_table(
                TableName="answers",
                KeySchema=[{"AttributeName": "answer_key", "KeyType": "HASH"}],
                AttributeDefinitions=[{"AttributeName": "answer_key", "AttributeType": "S"}],
                BillingMode="PAY_PER_REQUEST",
            )
            yield "dynamodb://answers"


def ask(home: Home, url: str) -> list[dict[str, Any]]:
    """Ask about all words of a home; return its answers."""
    judge = {"skip_high_confidence": False, "backoff_seconds": 0.01, "answers": url}
    pipeline = Pipeline(home, Settings.model_validate({"judge": judge}))
    pipeline.harmonize(
        RunOptions(judge="openai"),
        partitions=pipeline.partitions.held(),
        assets=["llm_verdicts"],
    )
    rows = pipeline.warehouse.query(
        "SELECT verdict_key, is_outlier, suggested_label, confidence, reasoning "
        "FROM llm_verdicts ORDER BY ALL"
    )
    return rows.to_pylist()


def measure(kind: str, homes: int, words: int) -> dict[str, Any]:
    with (
        tempfile.TemporaryDirectory(prefix="harmonizer-bench-") as folder,
        simulated_endpoint() as endpoint,
        cache_of(kind, Path(folder)) as url,
    ):
        endpoint.configure(**FAST)
        os.environ.update(
            {"OPENAI_BASE_URL": endpoint.url, "OPENAI_API_KEY": KEY, "HARMONIZER_MODEL": MODEL}
        )
        keep_homes_in(Path(folder))
        made = [Home(Path(folder) / f"home-{number}").ensure() for number in range(homes)]
        for home in made:
            scored_copy(home, Settings(), label_types=LABEL_TYPES, words=words // LABEL_TYPES)
        began = time.perf_counter()
        with ThreadPoolExecutor(homes) as threads:
            answers = list(threads.map(lambda home: ask(home, url), made))
        took = time.perf_counter() - began
        times = Counter(endpoint.words().values())
        return {
            "cache": kind,
            "homes": homes,
            "words": len(answers[0]),
            "seconds": round(took, 1),
            "bought": endpoint.stats()["words_asked"],
            "words by how often they were bought": dict(times),
            "all homes have the same": all(found == answers[0] for found in answers),
        }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--caches", default=",".join(CACHES))
    parser.add_argument("--homes", type=int, default=8)
    parser.add_argument("--words", type=int, default=1_000)
    options = parser.parse_args()
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    for kind in options.caches.split(","):
        print(json.dumps(measure(kind, options.homes, options.words)), flush=True)


if __name__ == "__main__":
    main()
