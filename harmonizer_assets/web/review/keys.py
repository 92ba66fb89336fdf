"""Keys of labels as one text, for links and for what the page sends back.

The page passes them on as they are: ids may be larger than a browser's numbers.
"""

from __future__ import annotations

import json

from harmonizer_assets.core.base.errors import InputError
from harmonizer_assets.core.records.label import LabelKey

_TYPES = (str, int, int, int, str)
_BOUND = 2**63


def key_text(key: LabelKey) -> str:
    """Write a label's key as one text."""
    return json.dumps([*key], ensure_ascii=False, separators=(",", ":"))


def parse_key(text: str) -> LabelKey:
    """Read what `key_text` has written.

    Raises:
        InputError: the text is no key of a label.
    """
    try:
        values = json.loads(text)
    except (ValueError, RecursionError):
        values = None
    if not isinstance(values, list) or [*map(type, values)] != [*_TYPES]:
        raise InputError("this is no key of a label")
    if not all(-_BOUND <= number < _BOUND for number in values[1:4]):
        raise InputError("this is no key of a label")
    return LabelKey(*values)
