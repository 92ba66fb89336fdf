"""Records of labels under review, and what people in other tools would make of their files."""

from __future__ import annotations

import datetime as dt
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from hypothesis import strategies as st

from harmonizer_assets.core.records.box import Box
from harmonizer_assets.core.records.correction import Action
from harmonizer_assets.core.records.label import LabelKey
from harmonizer_assets.core.review.exchange.records import (
    ExchangeRecord,
    Proposal,
    StandingAnswer,
)

TYPES = ("DATE", "TIME", "TAX", "GRAND_TOTAL", 'A "quoted" & <odd> type')
TIME = dt.datetime(2026, 11, 26, 21, 30, 5, 123456, dt.UTC)

HOSTILE = (
    *("=1+1", "@x", "-12.50", "+1,234.50", "-2+3", "'=1", "=cmd|' /C calc'!A0", "\uff1d1", "-"),
    *("x;=1", "a\n=1", "a\tb", 'a "b"', "it's", "a|b/c\\d", "1.0", "007", "1e5", "null", "true"),
    *("Bjo\u0308rn", "Bj\u00f6rn", "\U0001f468\u200d\U0001f469\u200d\U0001f467", "\u200b"),
    *("<script>alert(1)</script>", "{{ x }}", "\u202etxet", "\r", "\r\n", " x ", "\ufeff", "\x01"),
)
"""Texts that formats, spreadsheets or pages are known to change."""

texts = st.sampled_from(HOSTILE) | st.text(st.characters(codec="utf-8"), min_size=1, max_size=12)
some_texts = st.none() | texts
shares = st.floats(0, 1).map(lambda share: round(share, 6))
whole = st.integers(0, 2**53)
times = st.datetimes(dt.datetime(1990, 1, 1), dt.datetime(2100, 1, 1), timezones=st.just(dt.UTC))
proposals = st.builds(
    Proposal,
    st.sampled_from([str(action) for action in Action]),
    st.sampled_from((None, *TYPES)),
    st.none() | shares,
    some_texts,
    some_texts,
    some_texts,
)
records = st.builds(
    ExchangeRecord,
    key=st.builds(LabelKey, texts, whole, whole, whole, st.sampled_from(TYPES) | texts),
    text=texts,
    validation_status=st.sampled_from(("PENDING", "VALID")),
    batch_id=texts,
    batch_time=times,
    exported_at=times,
    line=some_texts,
    merchant_name=some_texts,
    box=st.none() | st.builds(Box, shares, shares, shares, shares),
    image_uri=some_texts,
    is_blind=st.booleans(),
    proposal=st.none() | proposals,
    answers=st.lists(
        st.builds(
            StandingAnswer,
            texts,
            st.sampled_from(("right", "wrong", "skip")),
            some_texts,
            some_texts,
        ),
        max_size=2,
    ).map(tuple),
)


def record(number: int = 1, **changed: Any) -> ExchangeRecord:
    """A label `DATE` that is to be `GRAND_TOTAL`, on a word of its own."""
    given = {
        "key": LabelKey("image", 1, number, 1, "DATE"),
        "text": "-12.50",
        "validation_status": "PENDING",
        "batch_id": "batch",
        "batch_time": TIME,
        "exported_at": TIME,
        "line": "TOTAL [-12.50]",
        "merchant_name": "Joe's",
        "box": Box(0.1, number / 20, 0.2, 0.03),
        "proposal": Proposal("move", "GRAND_TOTAL", 0.9, "it's a total", "similarity", "kind"),
    }
    return ExchangeRecord(**{**given, **changed})


def edited_json(path: Path, change: Callable[[Any], None]) -> Path:
    """Change what is in a file of JSON, or in each line of one, as a person would in a tool."""
    text = path.read_text(encoding="utf-8")
    if text.startswith("["):
        content = json.loads(text)
        change(content)
        path.write_text(json.dumps(content, ensure_ascii=False), encoding="utf-8")
        return path
    lines = [json.loads(line) for line in text.splitlines()]
    change(lines)
    written = "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines)
    path.write_text(written, encoding="utf-8")
    return path


def carried_key(row: Mapping[str, Any]) -> LabelKey:
    """The key of the label that a row, or what a task carries, is about."""
    return LabelKey(*(row[name] for name in LabelKey._fields))
