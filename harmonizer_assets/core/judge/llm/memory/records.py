"""The records of a journal: one line of JSON each, checked when they are read again."""

from __future__ import annotations

import datetime as dt
import io
import json
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Annotated, Any, Final, get_type_hints

from pydantic import (
    AfterValidator,
    AwareDatetime,
    BaseModel,
    ConfigDict,
    Field,
    ValidationError,
    create_model,
)

from harmonizer_assets.core.base.errors import StoreError
from harmonizer_assets.core.base.files import make_private_folder, write_atomically
from harmonizer_assets.core.records.label import Usage

_DAMAGED: Final = "damaged"


_Count = Annotated[int, Field(ge=0, lt=2**63)]


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)


class _Answer(_Part):
    """A row of `llm_verdicts`."""

    verdict_key: str
    model: str
    prompt_version: str
    label_type: str
    merchant_key: str
    word_text: str
    is_outlier: bool
    suggested_label: str | None
    confidence: float | None
    reasoning: str | None
    prompt_tokens: _Count | None
    completion_tokens: _Count | None
    cost_usd: float | None
    created_at: AwareDatetime


def _usage_model() -> type[_Part]:
    """Make a model of the fields of `Usage`; an older version may have written fewer."""
    kinds = get_type_hints(Usage)
    parts: dict[str, Any] = {
        part.name: (_Count if kinds[part.name] is int else kinds[part.name], part.default)
        for part in fields(Usage)
    }
    return create_model("_Usage", __base__=_Part, **parts)


_Usage = Annotated[Any, AfterValidator(_usage_model().model_validate)]


class _Spent(_Part):
    """The fields of `Spent`."""

    tokens: _Count
    usd: float | None
    unconfirmed_tokens: _Count
    unconfirmed_usd: float | None


class _Record(_Part):
    """What a group of calls has brought, or, with `sent`, what one call may cost at most."""

    run_id: str
    launch_id: str | None = None
    backfill_id: str | None = None
    day: dt.date | None = None
    answers: list[_Answer] = []
    usage: list[tuple[str, str, _Usage]] = []
    spent: _Spent | None = None
    ended: list[_Count] = []
    sent: tuple[_Count, _Spent] | None = None


Record = dict[str, Any]
"""A record as it is written, with the fields of `_Record`; times are text."""


@dataclass(frozen=True)
class Records:
    """The lines of a journal.

    Attributes:
        whole: the records that can be used, each with the offset of its end.
        damaged: the lines that cannot.
    """

    whole: list[tuple[int, Record]]
    damaged: list[bytes]

    def in_flight(self) -> list[Record]:
        """List the records of calls that were sent and of which no end is known."""
        ended = {number for _, record in self.whole for number in record.get("ended", ())}
        sent = [record for _, record in self.whole if "sent" in record]
        return [record for record in sent if record["sent"][0] not in ended]


def read_records(path: Path) -> Records:
    """Read a journal.

    A last line without an end is left out: the process died while it wrote it, so its answers were
    never used.

    Raises:
        StoreError: the file cannot be read.
    """
    records, offset = Records([], []), 0
    try:
        content = path.read_bytes()
    except OSError as error:
        raise StoreError(f"{path}: cannot be read ({error.strerror})") from error
    for line in io.BytesIO(content):
        if not line.endswith(b"\n"):
            break
        offset += len(line)
        record = _record(line)
        if record is None:
            records.damaged.append(line)
        else:
            records.whole.append((offset, record))
    return records


def set_aside(path: Path, records: Records) -> str:
    """Copy the damaged lines of a journal to the folder `damaged` beside it.

    Returns:
        A sentence that says so.

    Raises:
        StoreError: the copy cannot be written.
    """
    kept = path.parent / _DAMAGED / path.name
    try:
        make_private_folder(kept.parent)
        write_atomically(kept, b"".join(records.damaged))
    except OSError as error:
        raise StoreError(f"{kept}: cannot be written ({error.strerror})") from error
    answers = sum(len(record.get("answers", ())) for _, record in records.whole)
    return (
        f"{path}: {len(records.damaged)} damaged records of answers were set aside in {kept}; "
        f"{answers} answers in {len(records.whole)} others are kept, and those that are lost are "
        "asked again by the next run that asks"
    )


def _record(line: bytes) -> Record | None:
    try:
        _Record.model_validate_json(line)
    except ValidationError:
        return None
    return dict(json.loads(line))
