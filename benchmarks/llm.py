"""How fast and how cheap the language-model path is, against a simulated endpoint.

    python -m benchmarks.llm                 # about four minutes
    python -m benchmarks.llm --limits        # also 25,000 words under rate limits, seven more
    python -m benchmarks.llm --only faults

The endpoint is simulated: real HTTP on loopback, the latency of a real model (half a second to the
first token, then sixty tokens a second), no language model. Every ratio is of two measurements of
the same run. A bound is what latency, tokens and calls in flight allow at best: the time to the
first token plus the written tokens divided among the calls in flight, or the limits per minute if
these take longer.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import resource
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import openai

from harmonizer_assets.core.base.home import Home
from harmonizer_assets.core.base.settings import Settings
from harmonizer_assets.core.harmonize import harmonize_all_labels
from harmonizer_assets.core.judge.llm import MAX_CALL_WORDS, price_of
from harmonizer_assets.core.pipeline import Pipeline
from harmonizer_assets.core.records.options import RunOptions
from harmonizer_assets.core.records.taxonomy import Taxonomy
from harmonizer_tests.support.labels import scored_home
from harmonizer_tests.support.simulated_endpoint import (
    FAULTS,
    Endpoint,
    Options,
    simulated_endpoint,
)

MODEL: Final = "gpt-4o-mini"
WORDS: Final = 520
OLD_STYLE_SAMPLE: Final = 12
OLD_STYLE_REASON_TOKENS: Final = 34
"""With this the simulated verdicts of the old style are 60 tokens long, 1.5 s each."""
LATENCY: Final = Options()

Figures = dict[str, Any]


@contextmanager
def new_home() -> Iterator[Home]:
    with tempfile.TemporaryDirectory(prefix="harmonizer-bench-") as folder:
        home = Home(Path(folder) / "home").ensure()
        # The words made here have no receipt around them and no status: nothing for a model.
        home.settings_file.write_text('[similarity]\nscorer = "evidence"\n')
        yield home


def old_style(endpoint: Endpoint) -> Figures:
    """One word per call, one call after the other, every verdict with confidence and reasoning."""
    endpoint.configure(reason_tokens=OLD_STYLE_REASON_TOKENS)
    names = Taxonomy.default().names
    entry = {
        "id": {"type": "string"},
        "is_outlier": {"type": "boolean"},
        "suggested_label": {"type": "string", "enum": list(names)},
        "confidence": {"type": "number"},
        "reasoning": {"type": "string"},
    }
    items = {"type": "object", "properties": entry, "required": list(entry)}
    schema = {
        "type": "object",
        "properties": {"verdicts": {"type": "array", "items": items}},
        "required": ["verdicts"],
    }
    with new_home() as home:
        scored_home(home, words=WORDS)
        prompts = single_prompts(home, OLD_STYLE_SAMPLE)
    client = openai.OpenAI(base_url=endpoint.url, api_key="none", max_retries=0)
    began = time.perf_counter()
    format_ = {"type": "json_schema", "json_schema": {"name": "verdicts", "schema": schema}}
    for messages in prompts:
        request: dict[str, Any] = {"messages": messages, "response_format": format_}
        client.chat.completions.create(model=MODEL, **request)
    seconds = (time.perf_counter() - began) / len(prompts)
    stats = endpoint.stats()
    price = price_of(home, MODEL)
    assert price is not None
    cost = price.cost(stats["prompt_tokens"], stats["completion_tokens"]) / len(prompts)
    return {
        "words measured": len(prompts),
        "seconds per word": seconds,
        "completion tokens per word": stats["completion_tokens"] / len(prompts),
        "prompt tokens per word": stats["prompt_tokens"] / len(prompts),
        f"seconds for {WORDS} words, extrapolated": seconds * WORDS,
        "USD per 1,000 labels": 1_000 * cost,
    }


def single_prompts(home: Home, count: int) -> list[list[dict[str, str]]]:
    """Prompts of the product's own wire format for one word each."""
    settings = Settings.load(home.settings_file)
    pipeline = Pipeline(home, settings.with_judge(skip_high_confidence=False, llm_batch_size=count))
    system, user = pipeline.plan(RunOptions()).prompt or []
    document = json.loads(user["content"])
    return [
        [system, {**user, "content": json.dumps({**document, "items": [item]})}]
        for item in document["items"]
    ]


def measured(
    endpoint: Endpoint,
    home: Home,
    *,
    in_flight: int | None,
    simulated: dict[str, Any] | None = None,
    **judge: Any,
) -> Figures:
    """One cold run of `harmonize_all_labels` on a scored home."""
    endpoint.configure(**(simulated or {}))
    cpu, began = time.process_time(), time.perf_counter()
    knobs: dict[str, Any] = {}
    if in_flight:
        # One merchant is to use all of them.
        knobs = {"max_word_concurrency": in_flight, "max_label_type_concurrency": 10}
    report = asyncio.run(
        harmonize_all_labels(home, max_requests_in_flight=in_flight, **knobs, **judge)
    )
    wall, cpu = time.perf_counter() - began, time.process_time() - cpu
    stats = endpoint.stats()
    calls = in_flight or stats["max_in_flight"]
    per_call = LATENCY.first_token_seconds
    bound = per_call + stats["completion_tokens"] / LATENCY.tokens_per_second / max(1, calls)
    return {
        "labels": report.counts.labels,
        "words asked": stats["words_asked"],
        "calls": stats["requests"],
        "in flight": stats["max_in_flight"],
        "tokens in": stats["prompt_tokens"],
        "tokens out": stats["completion_tokens"],
        "asking s": stats["seconds"],
        "whole run s": wall,
        "bound s": bound,
        "asking / bound": stats["seconds"] / bound if bound else 0.0,
        "CPU ms per call": 1000 * cpu / max(1, stats["requests"]),
        "USD per 1,000 labels": 1000 * (report.totals.cost_usd or 0.0) / report.counts.labels,
    }


def one_merchant(endpoint: Endpoint, baseline: Figures) -> list[Figures]:
    """520 words of one merchant, cold cache."""
    old = baseline[f"seconds for {WORDS} words, extrapolated"]
    old_cost = baseline["USD per 1,000 labels"]
    rows = []
    every = {"skip_high_confidence": False}
    cases: list[tuple[str, int, dict[str, Any], dict[str, Any]]] = [
        ("fast, 20 in flight, nothing skipped", 20, {}, every),
        ("fast, 200 in flight, nothing skipped", 200, {}, every),
        ("cheap, 20 in flight, nothing skipped", 20, {}, {**every, "profile": "cheap"}),
        ("fast, 200, triage, 40 % repeated", 200, MIXED, {}),
        ("cheap, 20, triage, 40 % repeated", 20, MIXED, {"profile": "cheap"}),
    ]
    for name, in_flight, made, judge in cases:
        with new_home() as home:
            scored_home(home, **{"words": WORDS, **made})
            row = measured(endpoint, home, in_flight=in_flight, **judge)
        row["old style / whole run"] = old * row["labels"] / WORDS / row["whole run s"]
        row["old style / asking"] = old * row["labels"] / WORDS / max(0.001, row["asking s"])
        row["cost / old style"] = row["USD per 1,000 labels"] / old_cost
        rows.append({"case": name, **row})
    return rows


MIXED: Final[dict[str, Any]] = {
    "label_types": 10,
    "words": WORDS // 10,
    "repeated": 0.4,
    "wrong": 0.1,
    "validated": 0.5,
}
"""520 words of one merchant and ten label types, half of the right ones validated: similarity has
something to compare."""


def growing(endpoint: Endpoint) -> list[Figures]:
    """Time per label as merchants grow, with calls in flight as learned."""
    rows = []
    for merchants in (5, 20, 80):
        with new_home() as home:
            scored_home(home, label_types=5, merchants=merchants, words=25)
            row = measured(endpoint, home, in_flight=None, skip_high_confidence=False)
        rows.append(
            {
                "merchants": merchants,
                **row,
                "ms per label": 1000 * row["whole run s"] / row["labels"],
            }
        )
    return rows


def limited(endpoint: Endpoint) -> Figures:
    """10 label types x 50 merchants x 50 words under 500 requests and 200,000 tokens a minute."""
    limits = {"requests_per_minute": 500, "tokens_per_minute": 200_000}
    with new_home() as home:
        scored_home(home, label_types=10, merchants=50, words=50)
        row = measured(endpoint, home, in_flight=None, simulated=limits, skip_high_confidence=False)
    tokens = row["tokens in"] + row["tokens out"]
    bound = max(
        (tokens - limits["tokens_per_minute"]) * 60 / limits["tokens_per_minute"],
        (row["calls"] - limits["requests_per_minute"]) * 60 / limits["requests_per_minute"],
    )
    return {**row, "bound s": bound, "asking / bound": row["asking s"] / bound}


def overhead(endpoint: Endpoint) -> list[Figures]:
    """CPU time of the whole client process per call, and its memory, as words grow."""
    rows = []
    for words, batch_size in ((10_000, 1), (10_000, None), (100_000, None)):
        with new_home() as home:
            scored_home(home, label_types=10, merchants=words // 500, words=50)
            endpoint.configure(first_token_seconds=0.2, tokens_per_second=5_000.0)
            code = f"from benchmarks.llm import _cost; _cost({str(home.root)!r}, {batch_size})"
            done = subprocess.run(
                [sys.executable, "-c", code], stdout=subprocess.PIPE, check=True, text=True
            )
        rows.append({"words": words, **json.loads(done.stdout.splitlines()[-1])})
    return rows


def _cost(home: str, batch_size: int | None) -> None:
    idle = time.process_time()
    report = asyncio.run(
        harmonize_all_labels(
            Home(Path(home)),
            skip_high_confidence=False,
            max_requests_in_flight=64,
            max_word_concurrency=64,
            llm_batch_size=batch_size,
        )
    )
    cpu, calls = time.process_time() - idle, report.totals.calls
    print(
        json.dumps(
            {
                "words per call": report.totals.words_asked / calls,
                "CPU ms per call": 1000 * cpu / calls,
                "CPU ms per word": 1000 * cpu / report.totals.words_asked,
                "peak MB": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
            }
        )
    )


def faults(endpoint: Endpoint) -> Figures:
    """Ten percent of every fault at once."""
    share = dict.fromkeys(FAULTS, 0.1)
    with new_home() as home:
        scored_home(home, label_types=5, merchants=10, words=20)
        judge = {"skip_high_confidence": False, "backoff_seconds": 0.1, "timeout_seconds": 3.0}
        settings = Settings().with_judge(**judge)
        endpoint.configure(faults=share, tokens_per_second=600.0, first_token_seconds=0.1)
        report = asyncio.run(harmonize_all_labels(home, settings=settings))
        stats = endpoint.stats()
        counts = report.counts
        usage = Pipeline(home).tables.usage(report.run_id)
    bound = 5 + (MAX_CALL_WORDS - 1).bit_length()
    most = max(times for _, times in stats["most_asked"])
    assert counts.labels == counts.valid + counts.outliers + counts.unresolved
    assert counts.unresolved == counts.dead_letters
    assert sum(row["prompt_tokens"] for row in usage) == stats["prompt_tokens"]
    assert sum(row["completion_tokens"] for row in usage) == stats["completion_tokens"]
    assert most <= bound
    return {
        "words": counts.labels,
        "verdicts": counts.valid + counts.outliers,
        "dead letters": counts.dead_letters,
        "calls": stats["requests"],
        "faulty calls": sum(stats["faults"].values()),
        "most often asked": most,
        "bound": bound,
        "tokens accounted": "to the token",
    }


def kills(endpoint: Endpoint, times: int = 20) -> Figures:
    """Kill -9 at random moments; count answers that were stored and bought again."""
    rnd = random.Random(7)
    endpoint.configure(first_token_seconds=0.2, tokens_per_second=600.0)
    bought_again = 0
    cut_off = []
    with new_home() as home:
        scored_home(home, label_types=10, merchants=20, words=25)
        code = f"from benchmarks.llm import _ask; _ask({str(home.root)!r})"
        for _ in range(times):
            answered, before, stored = endpoint.stats()["answered"], endpoint.words(), _stored(home)
            process = subprocess.Popen([sys.executable, "-c", code])
            while endpoint.stats()["answered"] == answered and process.poll() is None:
                time.sleep(0.01)
            time.sleep(rnd.uniform(0, 0.4))
            process.send_signal(signal.SIGKILL)
            process.wait()
            after, now_stored = endpoint.words(), _stored(home)
            # All texts are different, so a text stands for its question.
            bought_again += sum(after[text] - before[text] for text in stored)
            asked = sum(after.values()) - sum(before.values())
            cut_off.append(asked - len(now_stored - stored))
        before, stored = endpoint.words(), _stored(home)
        _ask(str(home.root))
        after = endpoint.words()
        bought_again += sum(after[text] - before[text] for text in stored)
        calls = endpoint.stats()["requests"]
        _ask(str(home.root))
        again = endpoint.stats()["requests"] - calls
    return {
        "kills": times,
        "words": len(after),
        "words asked": sum(after.values()),
        "words in calls that one kill cut off, at most": max(cut_off),
        "words in flight, at most": 8 * 10,
        "stored answers bought again": bought_again,
        "calls of another run": again,
    }


def _ask(home: str) -> None:
    asyncio.run(
        harmonize_all_labels(
            Home(Path(home)),
            skip_high_confidence=False,
            max_requests_in_flight=8,
            llm_batch_size=10,
        )
    )


def _stored(home: Home) -> set[str]:
    """Words whose answers are durable, in the database or in a journal."""
    found = Pipeline(home).warehouse.query("SELECT word_text FROM llm_verdicts")
    words = set(found["word_text"].to_pylist())
    for journal in home.journals.glob("*.ndjson"):
        for line in journal.read_text().splitlines(keepends=True):
            if line.endswith("\n"):
                words |= {answer["word_text"] for answer in json.loads(line)["answers"]}
    return words


def show(title: str, rows: Figures | list[Figures]) -> None:
    print(f"\n{title}")
    for row in rows if isinstance(rows, list) else [rows]:
        print(
            "  "
            + "; ".join(
                f"{name} {value:,.3f}" if isinstance(value, float) else f"{name} {value}"
                for name, value in row.items()
            ),
            flush=True,
        )


PARTS: Final[dict[str, Callable[[Endpoint], Figures | list[Figures]]]] = {
    "growing": growing,
    "overhead": overhead,
    "faults": faults,
    "kills": kills,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--limits", action="store_true", help="also the long run under limits")
    parser.add_argument("--only", choices=["merchant", "limits", *PARTS])
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    results: dict[str, Any] = {}
    with simulated_endpoint() as endpoint:
        os.environ.update(
            OPENAI_BASE_URL=endpoint.url, OPENAI_API_KEY="none", HARMONIZER_MODEL=MODEL
        )
        if options.only in (None, "merchant"):
            baseline = results["old style"] = old_style(endpoint)
            show("Old style: one word a call, one after the other (simulated model)", baseline)
            results["merchant"] = one_merchant(endpoint, baseline)
            show("One merchant, 520 words", results["merchant"])
        for name, part in PARTS.items():
            if options.only in (None, name):
                results[name] = part(endpoint)
                show(part.__doc__ or name, results[name])
        if options.limits or options.only == "limits":
            results["limits"] = limited(endpoint)
            show(limited.__doc__ or "limits", results["limits"])
    if options.json:
        options.json.write_text(json.dumps(results, indent=2) + "\n")


if __name__ == "__main__":
    main()
