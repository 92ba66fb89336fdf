"""Merchant keys: stable, readable names for merchants that are safe as partition keys."""

from __future__ import annotations

import hashlib
import re
import unicodedata
from typing import Final

UNKNOWN_MERCHANT: Final = "unknown"
_MAX_SLUG: Final = 60
_NOT_ALPHANUMERIC: Final = re.compile(r"[\W_]+")


def merchant_key(name: str | None) -> str:
    """Make the key of a merchant from its display name.

    The key is a readable slug and eight hexadecimal digits of the name's SHA-1, so it depends on
    nothing but the name, and names with the same slug differ. Names that differ only in surrounding
    white space or in Unicode composition are one merchant; a missing name is `unknown`.
    """
    identity = unicodedata.normalize("NFC", name or "").strip()
    if not identity:
        return UNKNOWN_MERCHANT
    folded = unicodedata.normalize("NFKC", identity).casefold()
    slug = _NOT_ALPHANUMERIC.sub("-", folded).strip("-")[:_MAX_SLUG].strip("-") or "merchant"
    digest = hashlib.sha1(identity.encode("utf-8", "surrogatepass"), usedforsecurity=False)
    return f"{slug}-{digest.hexdigest()[:8]}"
