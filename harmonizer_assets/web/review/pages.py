"""The pages of the review as HTML. Jinja escapes every value; no page holds a script or a style."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import urlencode

import jinja2

from harmonizer_assets.core.records.correction import Action
from harmonizer_assets.core.records.label import label_key
from harmonizer_assets.core.review.answers import Answer
from harmonizer_assets.core.review.queue import ReviewFilter
from harmonizer_assets.web.links import REVIEW
from harmonizer_assets.web.review.keys import key_text

_CONTROL: Final = {code: 0x2400 + code for code in range(32)} | {127: 0x2421}
"""Control characters are shown by the signs that Unicode has for them."""

_MAX_MERCHANTS: Final = 200
"""Merchants to choose from, those with the most open labels."""
_ACTIONS: Final = {
    Action.MOVE: "move to another type",
    Action.MARK_INVALID: "mark as wrong",
    Action.CONFIRM: "confirm",
    Action.ASK: "ask a person",
}


@dataclass(frozen=True)
class Choice:
    """An answer that the page offers.

    Attributes:
        keys: on the keyboard.
        text: what it says.
        verdict, to_label: the answer.
    """

    keys: str
    text: str
    verdict: Answer
    to_label: str | None = None


def choices(label: str, action: str | None, to_label: str | None) -> list[Choice]:
    """List the answers about a label besides another type.

    Args:
        label: its type.
        action: what is proposed; None where that is not to be told.
        to_label: the type that is proposed, if one is.
    """
    right = Choice("r", f"{label} is right", Answer.RIGHT)
    no_label = Choice("x", "wrong, no label", Answer.WRONG)
    if action == Action.MOVE:
        return [Choice("a", f"accept: it is {to_label}", Answer.WRONG, to_label), right, no_label]
    if action == Action.MARK_INVALID:
        return [Choice("a x", "accept: wrong, no label", Answer.WRONG), right]
    if action == Action.CONFIRM:
        return [Choice("a r", f"accept: {label} is right", Answer.RIGHT), no_label]
    return [right, no_label]


def filter_query(chosen: ReviewFilter, **changed: Any) -> str:
    """Write a filter as the query of an address, with some of its parts changed."""
    values = chosen.values | changed
    values["disagreements"] = int(values["disagreements"]) or None
    return urlencode({name: value for name, value in values.items() if value is not None})


class Pages:
    """Renders the pages."""

    def __init__(self) -> None:
        self._environment = jinja2.Environment(
            loader=jinja2.PackageLoader("harmonizer_assets.web.review"),
            autoescape=True,
            undefined=jinja2.StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
            auto_reload=False,
        )
        self._environment.filters["shown"] = _shown
        self._environment.globals |= {
            "base": REVIEW,
            "key_of": lambda row: key_text(label_key(row)),
            "filter_query": filter_query,
        }

    def ask(self, what: str, then: str) -> str:
        """Render the page that asks for a `name` or a `token`, and goes on to an address."""
        return self._render("ask", what=what, then=then)

    def message(self, title: str, sentence: str) -> str:
        """Render a page that says one thing."""
        return self._render("message", title=title, sentence=sentence)

    def done(self, **values: Any) -> str:
        """Render what is shown when nothing is left to answer."""
        return self._render("done", **values)

    def queue(self, counts: Sequence[Mapping[str, Any]], **values: Any) -> str:
        """Render the list of what is open, with filters, progress and the rules of the policy.

        Args:
            counts: as `Review.counts` gives them.
            values: what else the template takes.
        """
        return self._render("queue", options=_options(counts), **values)

    def item(self, item: Mapping[str, Any], **values: Any) -> str:
        """Render one label.

        Of a blind sample, the template is given nothing but the label itself: what it does not
        have it cannot tell.
        """
        shown = {**item} if not item["is_blind"] else _without_proposal(item)
        offered = choices(item["label"], shown.get("action"), shown.get("to_label"))
        return self._render("item", item=shown, choices=offered, **values)

    def list(self, items: Sequence[Mapping[str, Any]], **values: Any) -> str:
        """Render labels for which the same is proposed, which one answer settles; at least one."""
        first = items[0]
        offered = choices(first["label"], first["action"], first["to_label"])
        return self._render("list", items=items, first=first, choices=offered, **values)

    def _render(self, name: str, **values: Any) -> str:
        return self._environment.get_template(f"{name}.html.j2").render(**values)


def _options(counts: Sequence[Mapping[str, Any]]) -> dict[str, list[tuple[str, str, int]]]:
    """List for each filter what can be chosen: value, text and number of open labels."""
    of = {
        name: [row for row in counts if row[name] is not None]
        for name in ("label_type", "merchant_key", "action")
    }
    return {
        "label_type": [
            (row["label_type"], row["label_type"], row["n"]) for row in of["label_type"]
        ],
        "merchant_key": [
            (row["merchant_key"], row["merchant_name"] or "unknown", row["n"])
            for row in of["merchant_key"][:_MAX_MERCHANTS]
        ],
        "action": [(row["action"], _ACTIONS[row["action"]], row["n"]) for row in of["action"]],
    }


_LABEL_ITSELF: Final = (
    *("image_id", "receipt_id", "line_id", "word_id", "label", "label_type"),
    *("merchant_key", "merchant_name", "word_text", "validation_status", "is_blind"),
)


def _without_proposal(item: Mapping[str, Any]) -> dict[str, Any]:
    return {name: item[name] for name in _LABEL_ITSELF}


def _shown(value: object) -> str:
    """Format a value for people; a control character becomes a sign."""
    if value is None:
        return "-"
    if isinstance(value, float):
        return f"{value:.3f}"
    return f"{value:,}" if isinstance(value, int) else str(value).translate(_CONTROL)
