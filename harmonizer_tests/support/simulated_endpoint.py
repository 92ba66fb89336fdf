"""A simulated OpenAI-compatible endpoint: real HTTP, no language model.

It answers chat completions by the strict JSON schema of the request, takes as long as a real model
takes to write that many tokens, keeps request and token limits, and fails on purpose, by a seed:

    python -m harmonizer_tests.support.simulated_endpoint --port 8099 --requests-per-minute 500

`GET /stats` and `GET /words` say what it was asked; `POST /configure` changes any option and starts
the counts anew. Tokens are counted as a quarter of the UTF-8 bytes, rounded up.
"""

from __future__ import annotations

import argparse
import asyncio
import hashlib
import json
import math
import os
import random
import re
import subprocess
import sys
import time
import urllib.request
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any, Final

import uvicorn

FAULTS: Final = (
    "error_500",
    "error_503",
    "reset",
    "hang",
    "truncated",
    "missing_id",
    "doubled_id",
    "unknown_id",
    "refusal",
)
BATCH_FAULTS: Final = (
    "no_json",
    "no_custom_id",
    "doubled",
    "contradicting",
    "errors_only",
    "partly_expired",
    "results_gone",
    "no_usage",
)
_FILE_NAME: Final = re.compile(rb'filename="([^"]+)"')
_REASON: Final = "the words beside it and its place on the receipt fit another label type better "


@dataclass(frozen=True)
class Options:
    """How the endpoint behaves.

    Attributes:
        first_token_seconds: time to the first token.
        tokens_per_second: output tokens per second after it.
        requests_per_minute: refused beyond this with 429; 0 means no limit.
        tokens_per_minute: the same for prompt and completion tokens.
        max_in_flight: refused beyond this with 429; 0 means no limit.
        outlier_share: share of the words that it calls outliers, by a hash of the word.
        reason_tokens: length of a reasoning.
        faults: probability of each fault, by name.
        poison: a text whose batches are never answered by the schema.
        gullible: whether a text like an instruction turns the whole answer, as a weak model does.
        batch_fault: what is wrong with the results of batches, one of `BATCH_FAULTS`.
        batch_seconds: how long a batch of the Batch API takes, from its submission on.
        seed: of the faults.
    """

    first_token_seconds: float = 0.5
    tokens_per_second: float = 60.0
    requests_per_minute: int = 0
    tokens_per_minute: int = 0
    max_in_flight: int = 0
    outlier_share: float = 0.15
    reason_tokens: int = 30
    faults: Mapping[str, float] = field(default_factory=dict)
    poison: str = ""
    gullible: bool = False
    batch_fault: str = ""
    batch_seconds: float = 1.0
    seed: int = 7


class Bucket:
    """A token bucket as providers keep it: full at first, refilled continuously."""

    def __init__(self, per_minute: int) -> None:
        self.capacity = float(per_minute)
        self._level = self.capacity
        self._at = time.monotonic()

    def level(self) -> float:
        now = time.monotonic()
        self._level = min(self.capacity, self._level + (now - self._at) * self.capacity / 60)
        self._at = now
        return self._level

    def take(self, amount: float) -> float:
        """Take an amount, or say in how many seconds it will be there."""
        level = self.level()
        if amount <= level or not self.capacity:
            self._level -= amount
            return 0.0
        return (min(amount, self.capacity) - level) * 60 / self.capacity


@dataclass
class Stats:
    requests: int = 0
    answered: int = 0
    in_flight: int = 0
    max_in_flight: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    statuses: Counter[str] = field(default_factory=Counter)
    faults: Counter[str] = field(default_factory=Counter)
    words: Counter[str] = field(default_factory=Counter)
    batches: int = 0
    first_request: float = 0.0
    last_answer: float = 0.0


def count_tokens(text: str) -> int:
    return math.ceil(len(text.encode()) / 4)


def is_outlier(label_type: str, text: str, share: float) -> bool:
    digest = hashlib.sha256(f"{label_type}\0{text}".encode()).digest()
    return int.from_bytes(digest[:4], "big") / 2**32 < share


def looks_like_an_instruction(text: str) -> bool:
    return any(word in text.lower() for word in ("ignore", "system", "instruct", "verdict", "you "))


class Simulated:
    def __init__(self, options: Options) -> None:
        self.configure(options)
        self.files: dict[str, bytes] = {}
        self._called: dict[str, str] = {}
        self._made = 0
        self.batches: dict[str, dict[str, Any]] = {}

    def configure(self, options: Options) -> None:
        self.options = options
        self.stats = Stats()
        self._random = random.Random(options.seed)
        self._requests = Bucket(options.requests_per_minute)
        self._tokens = Bucket(options.tokens_per_minute)

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "lifespan":
            while True:
                message = await receive()
                await send({"type": f"{message['type']}.complete"})
                if message["type"] == "lifespan.shutdown":
                    return
        body = b""
        while True:
            message = await receive()
            body += message.get("body", b"")
            if not message.get("more_body"):
                break
        path, method = scope["path"].removeprefix("/v1"), scope["method"]
        if path == "/chat/completions":
            await self._chat(json.loads(body), receive, send)
        elif path == "/stats":
            await _send(send, 200, self._stats())
        elif path == "/words":
            await _send(send, 200, self.stats.words)
        elif path == "/configure":
            self.configure(replace(Options(), **json.loads(body)))
            await _send(send, 200, asdict(self.options))
        elif path.startswith("/files"):
            await self._file(path, method, body, send)
        elif path.startswith("/batches"):
            await self._batch(path, method, body, send)
        else:
            await _send(send, 404, _error("unknown_url", f"no {path} here"))

    def _stats(self) -> dict[str, Any]:
        stats = {**vars(self.stats)}
        words = stats.pop("words")
        stats["files"] = len(self.files)
        return {
            **stats,
            "seconds": self.stats.last_answer - self.stats.first_request,
            "words_asked": sum(words.values()),
            "distinct_words": len(words),
            "most_asked": words.most_common(5),
        }

    async def _chat(self, request: dict[str, Any], receive: Any, send: Any) -> None:
        stats, options = self.stats, self.options
        stats.requests += 1
        stats.first_request = stats.first_request or time.monotonic()
        prompt = _prompt_tokens(request)
        wait = max(
            self._requests.take(1) if options.requests_per_minute else 0.0,
            self._tokens.take(prompt) if options.tokens_per_minute else 0.0,
        )
        crowded = options.max_in_flight and stats.in_flight >= options.max_in_flight
        if wait or crowded:
            stats.statuses["429"] += 1
            pause = {"retry-after": f"{max(wait, 0.1):.2f}"}
            error = _error("rate_limit_exceeded", "slow down")
            await _send(send, 429, error, {**self._limit_headers(), **pause})
            return
        stats.in_flight += 1
        stats.max_in_flight = max(stats.max_in_flight, stats.in_flight)
        gone = asyncio.create_task(receive())
        try:
            await self._answer(request, prompt, gone, send)
        finally:
            gone.cancel()
            stats.in_flight -= 1
            stats.last_answer = time.monotonic()

    def _fault(self) -> str:
        """The fault of this call: each may strike with its own probability, the first wins."""
        for name, probability in self.options.faults.items():
            if self._random.random() < probability:
                self.stats.faults[name] += 1
                return name
        return ""

    async def _answer(
        self, request: dict[str, Any], prompt: int, gone: asyncio.Task[Any], send: Any
    ) -> None:
        options, stats = self.options, self.stats
        fault = self._fault()
        document = json.loads(request["messages"][-1]["content"])
        stats.words.update(item["text"] for item in document["items"])
        if fault == "hang":
            with suppress(TimeoutError):
                await asyncio.wait_for(gone, 3_600)
            return
        if fault.startswith("error_"):
            await asyncio.sleep(options.first_token_seconds / 2)
            status = int(fault.removeprefix("error_"))
            stats.statuses[str(status)] += 1
            await _send(send, status, _error("server_error", "simulated fault"))
            return
        completion, tokens = complete(request, options, fault)
        if options.tokens_per_minute:
            self._tokens.take(tokens)
        headers = self._limit_headers()
        await asyncio.sleep(options.first_token_seconds + tokens / options.tokens_per_second)
        if fault == "reset":
            stats.statuses["reset"] += 1
            await send({"type": "http.response.start", "status": 200, "headers": []})
            raise ConnectionResetError
        stats.answered += 1
        stats.statuses["200"] += 1
        stats.prompt_tokens += prompt
        stats.completion_tokens += tokens
        completion["usage"] = {
            "prompt_tokens": prompt,
            "completion_tokens": tokens,
            "total_tokens": prompt + tokens,
        }
        await _send(send, 200, completion, headers)

    def _limit_headers(self) -> dict[str, str]:
        headers = {}
        for name, bucket in (("requests", self._requests), ("tokens", self._tokens)):
            if bucket.capacity:
                level = bucket.level()
                headers[f"x-ratelimit-limit-{name}"] = f"{bucket.capacity:.0f}"
                headers[f"x-ratelimit-remaining-{name}"] = f"{max(0, math.floor(level))}"
                reset = (bucket.capacity - level) * 60 / bucket.capacity
                headers[f"x-ratelimit-reset-{name}"] = f"{reset:.3f}s"
        return headers

    async def _file(self, path: str, method: str, body: bytes, send: Any) -> None:
        if method == "POST":
            # The one multipart field that matters is the file; its lines are JSON objects.
            lines = [line for line in body.splitlines() if line.startswith(b'{"custom_id"')]
            name = self._new_file(b"\n".join(lines), _FILE_NAME.findall(body)[0].decode())
            await _send(send, 200, self._file_object(name))
            return
        if path == "/files":
            found = [self._file_object(name) for name in self.files]
            await _send(send, 200, {"object": "list", "data": found, "has_more": False})
            return
        name = path.split("/")[2]
        if name not in self.files:
            await _send(send, 404, _error("not_found", f"no file {name}"))
        elif method == "DELETE":
            del self.files[name]
            await _send(send, 200, {"id": name, "object": "file", "deleted": True})
        elif path.endswith("/content"):
            await _send(send, 200, self.files[name])
        else:
            await _send(send, 200, self._file_object(name))

    def _new_file(self, content: bytes, called: str = "results.jsonl") -> str:
        self._made += 1
        name = f"file-{self._made}"
        self.files[name], self._called[name] = content, called
        return name

    def _file_object(self, name: str) -> dict[str, Any]:
        return _file_object(name, len(self.files[name]), self._called[name])

    async def _batch(self, path: str, method: str, body: bytes, send: Any) -> None:
        parts = path.strip("/").split("/")
        if method == "POST" and len(parts) == 1:
            request = json.loads(body)
            name = f"batch-{len(self.batches) + 1}"
            self.stats.batches += 1
            self.batches[name] = {
                "id": name,
                "object": "batch",
                "endpoint": request["endpoint"],
                "input_file_id": request["input_file_id"],
                "completion_window": request["completion_window"],
                "metadata": request.get("metadata"),
                "status": "in_progress",
                "created_at": int(time.time()),
                "began_at": time.monotonic(),
            }
            await _send(send, 200, _without_clock({**self.batches[name], "status": "validating"}))
            return
        if len(parts) == 1:
            found = [self._batch_now(name) for name in self.batches]
            await _send(send, 200, {"object": "list", "data": found[::-1], "has_more": False})
            return
        name = parts[1]
        if name not in self.batches:
            await _send(send, 404, _error("not_found", f"no batch {name}"))
            return
        if parts[-1] == "cancel" and self.batches[name]["status"] == "in_progress":
            self.batches[name]["status"] = "cancelled"
        await _send(send, 200, self._batch_now(name))

    def _batch_now(self, name: str) -> dict[str, Any]:
        batch = self.batches[name]
        ready_at = batch["began_at"] + self.options.batch_seconds
        if batch["status"] == "in_progress" and time.monotonic() >= ready_at:
            lines = []
            for line in self.files[batch["input_file_id"]].splitlines():
                request = json.loads(line)
                lines.append(json.dumps(self._batch_answer(request)))
            lines, errors = _faulty(lines, self.options.batch_fault)
            batch.update(status="completed")
            for field_name, content in (("output_file_id", lines), ("error_file_id", errors)):
                if content:
                    batch[field_name] = self._new_file("\n".join(content).encode())
            if self.options.batch_fault == "results_gone":
                del self.files[batch["output_file_id"]]
        return _without_clock(batch)

    def _batch_answer(self, line: dict[str, Any]) -> dict[str, Any]:
        request = line["body"]
        document = json.loads(request["messages"][-1]["content"])
        self.stats.words.update(item["text"] for item in document["items"])
        completion, tokens = complete(request, self.options, self._fault())
        prompt = _prompt_tokens(request)
        self.stats.answered += 1
        self.stats.prompt_tokens += prompt
        self.stats.completion_tokens += tokens
        completion["usage"] = {
            "prompt_tokens": prompt,
            "completion_tokens": tokens,
            "total_tokens": prompt + tokens,
        }
        response = {"status_code": 200, "request_id": "r", "body": completion}
        return {"id": "a", "custom_id": line["custom_id"], "response": response, "error": None}


def _faulty(lines: list[str], fault: str) -> tuple[list[str], list[str]]:
    """The lines of the output and of the error file."""
    first, *others = lines
    results = [json.loads(line) for line in lines]
    output, errors = lines, list[str]()
    match fault:
        case "no_json":
            output = [first[: len(first) // 2], "]", *others]
        case "no_custom_id":
            output = [json.dumps({**results[0], "custom_id": None}), "{}", *others]
        case "doubled":
            output = [first, json.dumps({**results[0], "id": "another"}), *others]
        case "contradicting":
            turned = first.replace('\\"ok\\"', '\\"outlier\\"')
            output = [first, turned, *others]
        case "errors_only":
            body = _error("unsupported_value", "'temperature' does not support 0.0")
            response = {"status_code": 400, "request_id": "r", "body": body}
            output = []
            errors = [json.dumps({**result, "response": response}) for result in results]
        case "partly_expired":
            gone = {"code": "batch_expired", "message": "This request could not be executed."}
            output, errors = others, [json.dumps({**results[0], "response": None, "error": gone})]
        case "page":
            output = ["<!DOCTYPE html><html><body>Please log in</html>"]
        case "no_usage":
            for result in results:
                del result["response"]["body"]["usage"]
            output = [json.dumps(result) for result in results]
    return output, errors


def _without_clock(batch: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in batch.items() if name != "began_at"}


def complete(request: dict[str, Any], options: Options, fault: str) -> tuple[dict[str, Any], int]:
    """The completion of a request, without usage, and its tokens."""
    document = json.loads(request["messages"][-1]["content"])
    items = document["items"]
    schema = request["response_format"]["json_schema"]["schema"]
    ((name, array),) = schema["properties"].items()
    entry = array["items"]["properties"]
    turned = options.gullible and any(map(looks_like_an_instruction, _read_by_a_model(document)))
    entries = [
        _entry(
            entry,
            item["id"],
            document["label_type"],
            turned
            ^ is_outlier(document["label_type"], item["text"].strip(), options.outlier_share),
            options.reason_tokens,
        )
        for item in items
    ]
    match fault:
        case "missing_id":
            entries = entries[1:]
        case "doubled_id":
            entries = [*entries, entries[0]]
        case "unknown_id":
            entries[0] = {**entries[0], "id": "no such id"}
    content = json.dumps({name: entries}, ensure_ascii=False, separators=(",", ":"))
    if options.poison and any(options.poison in item["text"] for item in items):
        content = content[: len(content) // 2]
    limit = request.get("max_completion_tokens") or request.get("max_tokens") or 10**9
    tokens, reason = count_tokens(content), "stop"
    if fault == "truncated":
        content, reason = content[: len(content) * 2 // 3], "length"
        tokens = count_tokens(content)
    if tokens > limit:
        content, tokens, reason = content[: limit * 4], limit, "length"
    message: dict[str, Any] = {"role": "assistant", "content": content, "refusal": None}
    if fault == "refusal":
        message, tokens = {"role": "assistant", "content": None, "refusal": "I cannot."}, 4
    return {
        "id": "simulated",
        "object": "chat.completion",
        "created": int(time.time()),
        "model": request["model"],
        "choices": [{"index": 0, "finish_reason": reason, "message": message}],
    }, tokens


def _read_by_a_model(document: dict[str, Any]) -> Iterator[str]:
    """Everything in a document that comes from receipts."""
    yield str(document["merchant"])
    yield from document.get("merchants", {})
    yield from document.get("valid_examples", [])
    for item in document["items"]:
        yield from (str(value) for name, value in item.items() if name != "id")


def _entry(
    schema: dict[str, Any], item_id: str, label_type: str, outlier: bool, reason_tokens: int
) -> dict[str, Any]:
    entry: dict[str, Any] = {}
    for name, kind in schema.items():
        kinds = kind.get("type", "string")
        kinds = [kinds] if isinstance(kinds, str) else kinds
        choices = [choice for choice in kind.get("enum", ()) if choice is not None]
        if name == "id":
            entry[name] = item_id
        elif kinds == ["boolean"]:
            entry[name] = outlier
        elif "outlier" in choices:
            entry[name] = "outlier" if outlier else next(c for c in choices if c != "outlier")
        elif "null" in kinds and not outlier:
            entry[name] = None
        elif choices:
            others = [choice for choice in choices if choice != label_type]
            entry[name] = others[
                int(hashlib.sha256(item_id.encode()).hexdigest(), 16) % len(others)
            ]
        elif "number" in kinds:
            entry[name] = 0.9
        else:
            entry[name] = (_REASON * math.ceil(reason_tokens * 4 / len(_REASON)))[
                : reason_tokens * 4
            ].strip()
    return entry


def _prompt_tokens(request: dict[str, Any]) -> int:
    schema = json.dumps(request["response_format"]["json_schema"]["schema"])
    return count_tokens(schema) + sum(count_tokens(m["content"]) + 4 for m in request["messages"])


def _error(code: str, message: str) -> dict[str, Any]:
    return {"error": {"message": message, "type": code, "code": code, "param": None}}


def _file_object(name: str, size: int, called: str) -> dict[str, Any]:
    return {
        "id": name,
        "object": "file",
        "bytes": size,
        "created_at": int(time.time()),
        "filename": called,
        "purpose": "batch",
        "status": "processed",
    }


async def _send(
    send: Any, status: int, body: Any, headers: Mapping[str, str] | None = None
) -> None:
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    fixed = {"content-type": "application/json", "content-length": str(len(content))}
    sent = [(k.encode(), v.encode()) for k, v in {**fixed, **(headers or {})}.items()]
    await send({"type": "http.response.start", "status": status, "headers": sent})
    await send({"type": "http.response.body", "body": content})


@dataclass(frozen=True)
class Endpoint:
    """A simulated endpoint that runs in a process of its own."""

    url: str

    def stats(self) -> dict[str, Any]:
        with urllib.request.urlopen(f"{self.url}/stats", timeout=30) as response:
            found: dict[str, Any] = json.load(response)
            return found

    def words(self) -> dict[str, int]:
        """How often each word was asked about."""
        with urllib.request.urlopen(f"{self.url}/words", timeout=30) as response:
            found: dict[str, int] = json.load(response)
            return found

    def configure(self, **options: Any) -> None:
        """Set options, all others to their defaults, and start the counts anew."""
        body = json.dumps(options).encode()
        request = urllib.request.Request(f"{self.url}/configure", body, method="POST")
        with urllib.request.urlopen(request, timeout=30):
            pass


@contextmanager
def simulated_endpoint(**options: Any) -> Iterator[Endpoint]:
    """Run an endpoint on a free loopback port."""
    process = subprocess.Popen(
        [sys.executable, "-m", "harmonizer_tests.support.simulated_endpoint"],
        cwd=Path(__file__).parents[2],
        env={k: v for k, v in os.environ.items() if k != "PYTHONDONTWRITEBYTECODE"},
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    endpoint = Endpoint(process.stdout.readline().strip())
    try:
        endpoint.configure(**options)
        yield endpoint
    finally:
        process.terminate()
        process.wait(10)


class _Server(uvicorn.Server):
    async def startup(self, sockets: Any = None) -> None:
        await super().startup(sockets)
        port = self.servers[0].sockets[0].getsockname()[1]
        print(f"http://127.0.0.1:{port}/v1", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--port", type=int, default=0, help="default: any free one")
    defaults = asdict(Options())
    for option in fields(Options):
        if option.name in ("faults", "gullible", "batch_fault"):
            continue
        default = defaults[option.name]
        name = f"--{option.name.replace('_', '-')}"
        parser.add_argument(name, type=type(default), default=default)
    parser.add_argument("--fault", action="append", default=[], metavar="NAME=PROBABILITY")
    chosen = vars(parser.parse_args())
    port = chosen.pop("port")
    faults = {name: float(p) for name, p in (f.split("=") for f in chosen.pop("fault"))}
    unknown = set(faults) - set(FAULTS)
    if unknown:
        parser.error(f"no fault {', '.join(unknown)}: choose from {', '.join(FAULTS)}")
    app = Simulated(Options(**chosen, faults=faults))
    # Connections that wait are kept: one that is closed at the moment at which a client sends its
    # next call on it would be a call there and no request here.
    config = uvicorn.Config(
        app,
        host="127.0.0.1",
        port=port,
        log_level="critical",
        backlog=4096,
        loop="uvloop",
        timeout_keep_alive=3_600,
    )
    _Server(config).run()


if __name__ == "__main__":
    main()
