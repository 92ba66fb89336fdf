"""A Lambda function behind moto's server.

Without containers moto answers each invocation with what it was sent and runs nothing. Here it
takes the requests, and its answers are those of processes that run the function as an image on
Lambda does: Amazon's runtime client asks for events over HTTP and sends back what the handler
answers.
"""

from __future__ import annotations

import json
import os
import queue
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import boto3
from moto.awslambda.exceptions import LambdaClientError
from moto.awslambda_simple.models import LambdaSimpleBackend
from moto.core.config import default_user_config

from harmonizer_tests.support.aws import aws_server

NAME = "harmonizer-units"
HANDLER = "harmonizer_assets.core.units.lambda_handler.handle"
_INVOCATION = "/2018-06-01/runtime/invocation"


class TooManyRequestsError(LambdaClientError):
    code = 429

    def __init__(self) -> None:
        super().__init__("TooManyRequestsException", "Rate Exceeded.")


@dataclass
class Answer:
    """What comes back from an invocation: JSON, and whether it says that the function failed."""

    content: bytes
    failed: bool = False

    @classmethod
    def failure(cls, kind: str, said: str) -> Answer:
        return cls(json.dumps({"errorType": kind, "errorMessage": said}).encode(), failed=True)


class Environment:
    """One process that runs the function, one event at a time, and its end of the Runtime API."""

    def __init__(self, variables: dict[str, str]) -> None:
        self.events: queue.SimpleQueue[bytes] = queue.SimpleQueue()
        self.answers: queue.SimpleQueue[Answer] = queue.SimpleQueue()
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self._server.daemon_threads = True
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()
        host, port = self._server.server_address[:2]
        self.process = subprocess.Popen(
            [sys.executable, "-m", "awslambdaric", HANDLER],
            env={**os.environ, **variables, "AWS_LAMBDA_RUNTIME_API": f"{host!s}:{port}"},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )

    def invoke(self, event: bytes, seconds: float) -> Answer:
        """Have an event handled; the process is killed when the time is up.

        Loading the code does not count, as on Lambda.
        """
        self.events.put(event)
        began = None
        while began is None or time.monotonic() < began + seconds:
            if began is None and self.events.empty():
                began = time.monotonic()
            try:
                return self.answers.get(timeout=0.02)
            except queue.Empty:
                if (code := self.process.poll()) is not None:
                    return Answer.failure("Runtime.ExitError", f"Runtime exited: status {code}")
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()
        return Answer.failure("Sandbox.Timedout", f"Task timed out after {seconds:.2f} seconds")

    def close(self) -> None:
        self.process.kill()
        self.process.wait()
        self._server.shutdown()
        self._server.server_close()

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        environment = self

        class RuntimeApi(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                body = environment.events.get()
                self.send_response(200)
                self.send_header("Lambda-Runtime-Aws-Request-Id", "8476a536-e9f4-11e8-9739-2dfe5")
                self.send_header("Lambda-Runtime-Deadline-Ms", str(int(time.time() + 900) * 1000))
                self.send_header("Lambda-Runtime-Invoked-Function-Arn", f"arn:aws:lambda:::{NAME}")
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def do_POST(self) -> None:
                content = self.rfile.read(int(self.headers["Content-Length"]))
                self.send_response(202)
                self.send_header("Content-Length", "0")
                self.end_headers()
                environment.answers.put(Answer(content, self.path.endswith("/error")))

            def log_message(self, *_: object) -> None:
                pass

        return RuntimeApi


@dataclass
class Function:
    """A function of moto's server.

    Attributes:
        url: of the server.
        variables: of the function's environment.
        most: invocations at once; one more is refused, as Lambda does.
        seconds: after which an invocation is ended.
    """

    url: str
    variables: dict[str, str]
    most: int = 2
    seconds: float = 30.0
    invocations: int = 0
    refused: int = 0
    at_once: int = 0
    _running: int = 0
    _idle: list[Environment] = field(default_factory=list)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def answer(self, event: bytes) -> Answer:
        with self._lock:
            if self._running >= self.most:
                self.refused += 1
                raise TooManyRequestsError
            self.invocations += 1
            self._running += 1
            self.at_once = max(self.at_once, self._running)
            environment = self._idle.pop() if self._idle else Environment(self.variables)
        answer = environment.invoke(event, self.seconds)
        with self._lock:
            self._running -= 1
            if environment.process.poll() is None:
                self._idle.append(environment)
            else:
                environment.close()
        return answer

    def close(self) -> None:
        for environment in self._idle:
            environment.close()


@contextmanager
def function_on_aws(**variables: str) -> Iterator[Function]:
    """Make a function on a server of moto, with these variables in its environment."""
    before = default_user_config["lambda"]
    default_user_config["lambda"] = {"use_docker": False}
    stock = LambdaSimpleBackend.invoke
    with aws_server(empty=True) as url:
        function = Function(url, variables)

        def invoke(
            backend: LambdaSimpleBackend, name: str, qualifier: str | None, body: Any, *headers: Any
        ) -> bytes:
            backend.get_function(name, qualifier)
            answer = function.answer(body if isinstance(body, bytes) else str(body).encode())
            if answer.failed:
                headers[1]["x-amz-function-error"] = "Unhandled"
            return answer.content

        LambdaSimpleBackend.invoke = invoke  # type: ignore[method-assign,assignment]
        try:
            _create(url)
            yield function
        finally:
            LambdaSimpleBackend.invoke = stock  # type: ignore[method-assign]
            default_user_config["lambda"] = before
            function.close()


def _create(url: str) -> None:
    iam = boto3.client("iam", endpoint_url=url)
    role = iam.create_role(RoleName=NAME, AssumeRolePolicyDocument="{}")["Role"]["Arn"]
    boto3.client("lambda", endpoint_url=url).create_function(
        FunctionName=NAME,
        Role=role,
        PackageType="Image",
        Code={"ImageUri": "123456789012.dkr.ecr.us-east-1.amazonaws.com/label-harmonizer:1"},
    )
