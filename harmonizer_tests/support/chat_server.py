"""A small OpenAI-compatible server on loopback: chat by a script of faults, and embeddings."""

from __future__ import annotations

import hashlib
import json
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

Answer = dict[str, Any]


def verdict(item_id: str, *, is_outlier: bool, suggested: str | None = None) -> Answer:
    return {
        "id": item_id,
        "v": "outlier" if is_outlier else "ok",
        "label": suggested,
        "why": "format" if is_outlier else None,
    }


def completion(
    content: Any, reason: str = "stop", usage: Any = None, **message: Any
) -> dict[str, Any]:
    """A chat completion with this content; an object becomes JSON."""
    text = content if content is None or isinstance(content, str) else json.dumps(content)
    return {
        "id": "c",
        "object": "chat.completion",
        "created": 0,
        "model": "some-model",
        "choices": [
            {
                "index": 0,
                "finish_reason": reason,
                "message": {"role": "assistant", "content": text, **message},
            }
        ],
        "usage": usage,
    }


USAGE: dict[str, int] = {"prompt_tokens": 100, "completion_tokens": 12, "total_tokens": 112}


@dataclass(frozen=True)
class Response:
    """A whole response: JSON data, or a text as it is."""

    status: int
    body: Any


@dataclass
class ChatServer:
    """What the server was asked, and how it is to answer.

    Attributes:
        faults: taken one per request while there are any: an HTTP status, or a function that turns
            the list of verdicts into the content of the answer.
        decide: says of each item's text whether it is an outlier.
        behave: how every request is answered, given it and the verdicts; None: as usual.
        looking_again: for `decide` to know.
    """

    decide: Callable[[str], bool] = lambda text: False
    faults: list[int | Callable[[list[Answer]], Any]] = field(default_factory=list)
    behave: Callable[[dict[str, Any], list[Answer]], Response | None] = lambda request, made: None
    error_code: str = "server_error"
    headers: dict[str, str] = field(default_factory=dict)
    requests: list[dict[str, Any]] = field(default_factory=list)
    authorizations: list[str] = field(default_factory=list)
    delay: float = 0.0
    looking_again: bool = False
    url: str = ""
    lock: threading.Lock = field(default_factory=threading.Lock)

    def questions(self) -> list[dict[str, Any]]:
        return [json.loads(request["messages"][-1]["content"]) for request in self.requests]


def _embeddings(body: dict[str, Any]) -> dict[str, Any]:
    """Vectors that depend on nothing but the text."""
    data = [
        {
            "object": "embedding",
            "index": index,
            "embedding": [
                1.0 + hashlib.sha256(f"{n}{text}".encode()).digest()[0]
                for n in range(body["dimensions"])
            ],
        }
        for index, text in enumerate(body["input"])
    ]
    usage = {"prompt_tokens": 1, "total_tokens": 1}
    return {"object": "list", "model": body["model"], "data": data, "usage": usage}


class _Server(ThreadingHTTPServer):
    def handle_error(self, request: Any, client_address: Any) -> None:
        # A run that stops leaves the requests that are under way.
        if not isinstance(sys.exception(), ConnectionError):
            super().handle_error(request, client_address)


@contextmanager
def chat_server() -> Iterator[ChatServer]:
    state = ChatServer()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            with state.lock:
                state.requests.append(body)
                state.authorizations.append(self.headers.get("Authorization", ""))
                fault = state.faults.pop(0) if state.faults else None
            time.sleep(state.delay)
            if not self.path.startswith("/v1/"):
                self._send(404, {"detail": "Not Found"})
                return
            if self.path.endswith("/embeddings"):
                self._send(fault or 200, _embeddings(body))
                return
            question = json.loads(body["messages"][-1]["content"])
            verdicts = [
                verdict(item["id"], is_outlier=state.decide(item["text"]), suggested="TIME")
                if state.decide(item["text"])
                else verdict(item["id"], is_outlier=False)
                for item in question["items"]
            ]
            if isinstance(fault, int):
                error = {"message": "sk-secret is bad", "code": state.error_code}
                self._send(fault, {"error": error})
                return
            behaved = state.behave(body, verdicts)
            if behaved is not None:
                self._send(behaved.status, behaved.body)
                return
            content = fault(verdicts) if fault else {"verdicts": verdicts}
            self._send(200, completion(content, usage=USAGE))

        def _send(self, status: int, body: Any) -> None:
            is_text = isinstance(body, str)
            payload = (body if is_text else json.dumps(body)).encode()
            self.send_response(status)
            for name, value in state.headers.items():
                self.send_header(name, value)
            self.send_header("Content-Type", "text/html" if is_text else "application/json")
            self.send_header("Content-Length", str(len(payload)))
            self.end_headers()
            self.wfile.write(payload)

        def log_message(self, format: str, *args: Any) -> None:
            pass

    server = _Server(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    state.url = f"http://127.0.0.1:{server.server_port}/v1"
    try:
        yield state
    finally:
        server.shutdown()
        server.server_close()
