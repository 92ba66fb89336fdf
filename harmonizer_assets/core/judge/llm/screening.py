"""Screening: which texts of receipts may stand beside other words in a prompt.

The screen is not a proof: a text that passes is still only JSON data under a strict answer schema.
"""

from __future__ import annotations

import hashlib
import re
import unicodedata
from typing import Final

# A word as OCR reads it is short and holds no spaces. Anything else is asked about alone and never
# shown as the neighbour or example of another word, so that it cannot influence other verdicts.
_PLAIN_WORD: Final = re.compile(r"[^\s{}<>\[\]\\`|\"]{1,32}")
_PLAIN_NAME: Final = re.compile(r"[\w&'\u2019.,()\-+/@#!* ]{1,60}")
_ORDERS: Final = re.compile(
    r"ignor|disregard|instru[ck]|prompt|system|assistant|verdict|outlier|json|override|jailbreak"
    r"|anweisung|vergiss|olvida|oublie|игнорир|инструкц|систем|忽略|无视|無視|指令|指示|系统|系統|提示"
    r"|무시|지시|시스템|تجاهل|تعليمات|अनदेखा|निर्देश|เพิกเฉย|คำสั่ง"
)
_ORDERS_IN_NAMES: Final = re.compile(
    r"\b(?:answer|respond|reply|say|mark|label|treat|classify|approve|return|output|all|every|each"
    r"|always|never)\b.*\b(?:ok|valid|correct|items?|labels?|words?|everything)\b"
    r"|\b(?:forget|pretend|repeat|translate|definition|rules)\b"
)
# Invisible letters and marks, and letters that look like Latin ones.
_UNSEEN: Final = re.compile(
    "[\u034f\u115f\u1160\u2800\u3164\ufe00-\ufe0f\uffa0\U000e0100-\U000e01ef]"
)
_LATIN: Final = re.compile(r"[A-Za-z]")
_LIKE_LATIN: Final = re.compile("[\u0370-\u03ff\u0400-\u052f]")
_SIGNS: Final = re.compile(r"[\W_]+")


def _is_deceptive(text: str) -> bool:
    """Return whether a text holds invisible characters, or letters that look like others."""
    if text.isascii():
        return not text.isprintable()
    return (
        any(unicodedata.category(character) in ("Cc", "Cf", "Co", "Cs") for character in text)
        or bool(_UNSEEN.search(text))
        or any(_LATIN.search(word) and _LIKE_LATIN.search(word) for word in text.split())
    )


def _folded(text: str) -> str:
    """Return a text without case, accents and variants of letters."""
    if text.isascii():
        return text.lower()
    letters = unicodedata.normalize("NFKD", text)
    bare = "".join(letter for letter in letters if not unicodedata.combining(letter))
    return unicodedata.normalize("NFC", bare).casefold()


def is_plain_word(text: str) -> bool:
    """Return whether a text looks like one word of a receipt rather than like prose or code."""
    if not _PLAIN_WORD.fullmatch(text) or _is_deceptive(text):
        return False
    folded = _folded(text)
    return not (_ORDERS.search(folded) or _ORDERS.search(_SIGNS.sub("", folded)))


def is_plain_name(name: str) -> bool:
    """Return whether a merchant's name may be shown to a model as it is."""
    return bool(_PLAIN_NAME.fullmatch(name)) and not _is_deceptive(name) and not _gives_orders(name)


def _gives_orders(name: str) -> bool:
    folded = _folded(name)
    return bool(_ORDERS.search(folded) or _ORDERS_IN_NAMES.search(folded))


def shown_merchant(name: str, key: str) -> str:
    """Return a merchant's name, else its key, or a digest of a key like an instruction."""
    if is_plain_name(name):
        return name
    slug = key.rpartition("-")[0].replace("-", " ")
    if not _is_deceptive(slug) and not _gives_orders(slug):
        return key
    return f"merchant-{hashlib.sha256(key.encode()).hexdigest()[:8]}"
