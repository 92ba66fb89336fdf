"""Units on AWS Lambda: one function, invoked for one unit at a time, as often at once as allowed.

Each invocation is waited for. So the run hears at once how it went, and counts attempts as other
executors do; Lambda's own queue for invocations that nobody waits for would try a failed one twice
more, after minutes.
"""

from __future__ import annotations

import json
import logging
import random
import threading
from collections.abc import Collection
from typing import Any, Final

from harmonizer_assets.core.base.aws import aws_client, error_code
from harmonizer_assets.core.base.errors import ConfigurationError, WorkersError
from harmonizer_assets.core.base.extras import needs_extra
from harmonizer_assets.core.base.secrets import redacted, translated
from harmonizer_assets.core.units.executors.base import Endings, Executor
from harmonizer_assets.core.units.store import Failure, UnitStore
from harmonizer_assets.core.units.work import Outcome

_log = logging.getLogger(__name__)

_SPARE_SECONDS: Final = 120.0
"""How much longer than the longest unit an answer is waited for: cold starts take time."""
_FIRST_PAUSE: Final = 0.5
_LONGEST_PAUSE: Final = 30.0
_PATIENCE: Final = 900.0
"""Seconds of pauses after which a function that takes no invocation is given up."""
_TOO_MANY: Final = 429
_SERVER_ERRORS: Final = 500
_NOT_READY: Final = ("ResourceConflictException",)
"""What Lambda says while a function is being made or changed."""


class LambdaExecutor(Executor):
    """Invokes a function for each unit, in one thread per invocation."""

    def __init__(
        self, store: UnitStore, function: str, attempts: int, seconds: float, most_waiting: int
    ) -> None:
        """Make the client; nothing is requested yet.

        Args:
            store: holds the units; must be one that the function works for.
            function: its name or ARN, with an alias if wanted.
            attempts: how often a unit may be tried.
            seconds: the longest that an attempt may take.
            most_waiting: invocations at once.

        Raises:
            ConfigurationError: the extra is not installed, or no region is set.
        """
        self.most_waiting = most_waiting
        self._store = store
        self._function = function
        self._attempts = attempts
        self._seconds = seconds
        self._room = threading.BoundedSemaphore(most_waiting)
        self._ended = Endings()
        self._closed = threading.Event()
        self._client = _client(most_waiting, seconds + _SPARE_SECONDS)

    def submit(self, unit: str) -> None:
        """Start a thread that has the function compute a unit; see `Executor.submit`."""
        # It may wait for an answer when the run is stopped, and must not keep the process then.
        threading.Thread(target=self._run, args=(unit,), name="unit", daemon=True).start()

    def finished(self, units: Collection[str], seconds: float) -> list[str]:
        """Wait for an invocation to end; see `Executor.finished`."""
        return self._ended.wait(units, seconds)

    def close(self) -> None:
        """Begin no more invocations. Those that run go on, and the next run finds their results."""
        self._closed.set()

    def _run(self, unit: str) -> None:
        try:
            with self._room:
                while not self._closed.is_set() and not self._attempted(unit):
                    pass
            self._ended.put(unit)
        except Exception as error:
            self._ended.put(error)

    def _attempted(self, unit: str) -> bool:
        """Invoke the function; return whether the unit has ended: with a result, or dead."""
        answer = self._invoked(unit)
        if answer is None:
            return False
        if isinstance(answer, Failure):
            _log.warning("the function failed at unit %s: %s", unit[:12], answer.error)
            return bool(self._store.finished([unit])) or self._count(unit, answer)
        if "error" in answer:
            raise WorkersError(f"the function {self._function} says: {answer['error']}")
        return Outcome(answer["outcome"]) is not Outcome.AGAIN

    def _count(self, unit: str, failure: Failure) -> bool:
        """Count an attempt whose process ended early; return whether it was the last.

        The function counts an attempt when it begins it, and fails before that where its code
        cannot be loaded.
        """
        number: int | None = self._store.attempts(unit)
        if not number or not self._store.note(unit, number, failure):
            number = self._store.begin(unit, self._attempts)
            if number is not None:
                self._store.note(unit, number, failure)
        if number is not None and number < self._attempts:
            return False
        self._store.bury(unit)
        return True

    def _invoked(self, unit: str) -> dict[str, Any] | Failure | None:
        """Invoke the function; wait while Lambda takes no more invocations.

        Returns:
            What the function answers, or how it failed; None when the run stops meanwhile.

        Raises:
            WorkersError: there is no such function, it may not be invoked, something else has
                answered, or Lambda has taken no invocation for a long time.
        """
        pause, waited = _FIRST_PAUSE, 0.0
        while not self._closed.is_set():
            said, response = self._request(unit)
            if response is not None:
                return _answer(self._function, response)
            if waited > _PATIENCE:
                raise WorkersError(
                    f"the function {self._function} has taken no invocation for {waited:.0f} s of "
                    f"pauses ({said}): lower [units] most_waiting, or raise the limit of "
                    "concurrent executions of the account"
                )
            _log.info("Lambda takes no invocation now (%s): pausing up to %.0f s", said, pause)
            # Threads that were refused together do not come back together.
            drawn = pause * random.uniform(0.5, 1.0)
            self._closed.wait(drawn)
            waited, pause = waited + drawn, min(2 * pause, _LONGEST_PAUSE)
        return None

    def _request(self, unit: str) -> tuple[str, dict[str, Any] | None]:
        """Request one invocation; return why there is no response, where it is worth waiting."""
        from botocore.exceptions import BotoCoreError, ClientError, HTTPClientError

        event = {
            "unit": unit,
            "store": self._store.objects.url,
            "attempts": self._attempts,
            "seconds": self._seconds,
        }
        with translated(self._error, ClientError, BotoCoreError):
            try:
                return "", self._client.invoke(
                    FunctionName=self._function, Payload=json.dumps(event).encode()
                )
            except HTTPClientError as error:
                return type(error).__name__, None
            except ClientError as error:
                status = int(error.response["ResponseMetadata"]["HTTPStatusCode"])
                code = redacted(error_code(error))
                if status == _TOO_MANY or status >= _SERVER_ERRORS or code in _NOT_READY:
                    return code, None
                raise

    def _error(self, error: Exception) -> WorkersError:
        return WorkersError(
            f"the function {self._function} cannot be invoked ({error_code(error)}): check its "
            "name, the region and that the credentials in the environment may invoke it"
        )


def _client(connections: int, seconds: float) -> Any:
    """Make a client that leaves retries to us: a second request would be a second attempt."""
    with needs_extra("s3", "units on Lambda"):
        from botocore.config import Config
        from botocore.exceptions import BotoCoreError

        config = Config(
            read_timeout=seconds,
            retries={"total_max_attempts": 1},
            max_pool_connections=connections,
            tcp_keepalive=True,
        )
        with translated(_unusable, BotoCoreError):
            return aws_client("lambda", config=config)


def _unusable(error: Exception) -> ConfigurationError:
    return ConfigurationError(
        f"no client of Lambda can be made ({error_code(error)}): set AWS_DEFAULT_REGION and the "
        "credentials in the environment"
    )


def _answer(function: str, response: dict[str, Any]) -> dict[str, Any] | Failure:
    """Read what the function has answered, or what Lambda says of how it failed.

    Raises:
        WorkersError: neither our function nor Lambda has answered.
    """
    text = response["Payload"].read().decode("utf-8", "replace")
    try:
        content = json.loads(text)
    except ValueError:
        content = None
    if "FunctionError" not in response:
        if isinstance(content, dict) and not content.keys().isdisjoint(("outcome", "error")):
            return content
        # Every unit would get this answer.
        raise WorkersError(
            f"the function {function} gives an answer that is none about a unit: is it one of "
            "`harmonizer`, and does the network want a login?"
        )
    said = content if isinstance(content, dict) else {}
    return Failure.of(
        str(said.get("errorType", "Error")),
        str(said.get("errorMessage", f"the function answers {text!r}")),
        "".join(map(str, said.get("stackTrace") or ())),
    )
