"""Clients of Amazon's services, which take no other server's answer for one of theirs."""

from __future__ import annotations

import json
import xml.etree.ElementTree as ET
from collections.abc import Mapping
from functools import cache
from typing import Any


def aws_client(service: str, **given: Any) -> Any:
    """Make a client; nothing is requested yet.

    A network that wants people to log in answers everything with a page and status 200, which
    botocore reads as success: what was not written would count as written.

    Args:
        service: its name, as boto3 has it.
        **given: passed on to boto3.

    Raises:
        ModuleNotFoundError: boto3 is not installed.
        botocore.exceptions.BotoCoreError, ValueError: what is given or in the environment is not
            usable. Calls raise a BotoCoreError for answers of others.
    """
    # boto3 is optional and takes a second to import.
    import boto3

    return checked(boto3.client(service, **given))


def checked(client: Any) -> Any:
    """Have a client that a library has made take no other server's answers, see `aws_client`."""
    client.meta.events.register("before-parse", check_answer)
    return client


def error_code(error: Exception) -> str:
    """Name what went wrong in a call: what the service says, or else the kind of error.

    Its text may hold secrets.
    """
    response = getattr(error, "response", None)
    if isinstance(response, Mapping):
        return str(response.get("Error", {}).get("Code", "unknown"))
    kind, remedy = type(error).__name__, getattr(error, "remedy", None)
    return f"{kind}: {remedy}" if remedy else kind


def check_answer(operation_model: Any, response_dict: Mapping[str, Any], **_: Any) -> None:
    """Check an answer before botocore parses it: its `status_code`, `headers` and `body`.

    Raises:
        BotoCoreError: it is none of the service's.
    """
    if response_dict["status_code"] < 300 and not _is_answer(operation_model, response_dict):
        raise _foreign_answer()(service=operation_model.service_model.service_name)


def _is_answer(model: Any, answer: Mapping[str, Any]) -> bool:
    members = model.output_shape.members if model.output_shape else {}
    tag = members.get("ETag")
    if tag is not None and tag.serialization.get("location") == "header":
        # An object may be a page itself.
        return "etag" in {name.lower() for name in answer["headers"]}
    if model.has_streaming_output:
        return True
    body = answer["body"]
    if "json" in model.service_model.metadata["protocol"]:
        return not body or _is_object(body)
    return not body or _is_xml(body)


def _is_object(body: bytes) -> bool:
    try:
        return isinstance(json.loads(body), dict)
    except ValueError:
        return False


def _is_xml(body: bytes) -> bool:
    try:
        root = ET.fromstring(body)
    except ET.ParseError:
        return False
    return root.tag.rpartition("}")[2].lower() != "html"


@cache
def _foreign_answer() -> Any:
    from botocore.exceptions import BotoCoreError

    class ForeignAnswerError(BotoCoreError):  # type: ignore[misc]
        """Something between here and the service has answered."""

        fmt = "The answer is not one of {service}"
        remedy = "does the network want a login?"

    return ForeignAnswerError
