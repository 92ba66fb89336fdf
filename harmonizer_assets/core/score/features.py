"""Features of a word on its page, as sparse columns in named groups.

Text goes through feature hashing (Weinberger et al. 2009, "Feature Hashing for Large Scale
Multitask Learning"), so the columns need no vocabulary and mean the same on every page and in every
process.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Final

import numpy as np
import numpy.typing as npt

from harmonizer_assets.core.records.mask import mask_of
from harmonizer_assets.core.score.amounts import RELATIONS, amount_relations
from harmonizer_assets.core.score.money import parse_amount
from harmonizer_assets.core.score.pages import Page

if TYPE_CHECKING:
    from scipy import sparse

FEATURES_VERSION: Final = "4"

SHAPES: Final = (
    (
        "date",
        re.compile(
            r"\(?(?:\d{1,4}[-/.]\d{1,2}[-/.]\d{1,4}|\d{1,2}[-/. ]?[A-Za-z]{3,9}[-/. ]?\d{2,4}"
            r"|(?:19|20)\d{6})\)?,?"
        ),
    ),
    ("time", re.compile(r"\d{1,2}[:.]\d{2}(?:[:.]\d{2})?\s?(?:[AaPp]\.?[Mm]\.?)?")),
    ("phone", re.compile(r"\+?\(?\d{1,4}\)?[- .]?\d{2,4}[- .]?\d{3,5}(?:[- .]?\d{2,4})?")),
    ("percent", re.compile(r"@?\(?\d{1,2}(?:[.,]\d{1,2})?%\)?")),
    ("count", re.compile(r"[xX@]?\d{1,3}[xX@]?")),
    ("number", re.compile(r"\d+")),
    ("web", re.compile(r"(?:https?:|www\.)\S+|\S+@\S+\.\S+|\S+\.(?:com|net|org|my)\S*", re.I)),
    ("code", re.compile(r"(?=.*\d)(?=.*[A-Za-z])[\w#*/.:-]+")),
    ("caption", re.compile(r"[A-Za-z][\w. /()&'-]*:\.?")),
    ("capitals", re.compile(r"[A-Z][A-Z.&'-]*")),
    ("word", re.compile(r"[^\W\d_][^\d]*")),
)
"""Shapes of texts that are no amounts of money: the first that matches as a whole, else `other`."""

_TEXT_COLUMNS: Final = 2**16
_ROW_COLUMNS: Final = 2**16
_PLACE_COLUMNS: Final = 2**13
_BINS: Final = 10
_ON_ROW: Final = ("left", "right", "row")
_OFF_ROW: Final = ("above", "below", "receipt")
_WINDOW: Final = 2
"""Rows above and below whose labels and captions count as near."""


def _columns_of(n_types: int) -> dict[str, int]:
    return {
        "text": _TEXT_COLUMNS,
        "row": _ROW_COLUMNS,
        "place": _PLACE_COLUMNS,
        "neighbours": len(_ON_ROW) * n_types,
        "around": len(_OFF_ROW) * n_types,
        "arithmetic": 2 * len(RELATIONS),
    }


GROUPS: Final = tuple(_columns_of(1))
"""Names of the groups, in the order of their columns."""


def group_ranges(n_types: int) -> dict[str, tuple[int, int]]:
    """Return first column and end of each group, for `n_types` label types."""
    ends = np.cumsum(list(_columns_of(n_types).values())).tolist()
    return dict(zip(GROUPS, zip([0, *ends[:-1]], ends, strict=True), strict=True))


def shape_of(text: str) -> str:
    """Return the name of a text's shape."""
    stripped = text.strip()
    if parse_amount(stripped) is not None:
        return "money"
    return next((name for name, pattern in SHAPES if pattern.fullmatch(stripped)), "other")


def shapes_of(texts: Sequence[str]) -> list[str]:
    """Return the names of n texts' shapes."""
    known: dict[str, str] = {}
    for text in texts:
        if text not in known:
            known[text] = shape_of(text)
    return [known[text] for text in texts]


def extract_features(
    page: Page, words: npt.NDArray[np.int64], without: Sequence[str] = ()
) -> sparse.csr_matrix:
    """Extract the features of some words.

    Labels on a word itself are no feature of it; those of the words around it are.

    Args:
        page: the words of whole receipts.
        words: shape (n,), numbers of words of the page.
        without: groups whose columns are to stay empty, for ablation.

    Returns:
        Sparse matrix of shape (n, columns), 32-bit floats; see `group_ranges` for the columns.
    """
    # Importing SciPy takes longer than a run that finds nothing to do.
    from scipy import sparse

    shapes = shapes_of(page.texts)
    widths = _columns_of(page.n_types)
    labels = neighbour_labels(page, words)
    blocks = {
        "text": lambda: _text(page, words, shapes),
        "row": lambda: _row(page, words, shapes),
        "place": lambda: _place(page, words, shapes),
        "neighbours": lambda: labels[:, : widths["neighbours"]],
        "around": lambda: labels[:, widths["neighbours"] :],
        "arithmetic": lambda: _arithmetic(page, words, shapes),
    }
    return sparse.hstack(
        [
            sparse.csr_matrix((len(words), widths[group]), dtype=np.float32)
            if group in without
            else block()
            for group, block in blocks.items()
        ],
        format="csr",
        dtype=np.float32,
    )


def with_neighbours(
    features: sparse.csr_matrix, page: Page, words: npt.NDArray[np.int64]
) -> sparse.csr_matrix:
    """Replace what the labels of the words around say, by those of another page of the same words.

    Args:
        features: shape (n, columns), as `extract_features` makes them.
        page: the same words, with other labels.
        words: shape (n,), numbers of the words.
    """
    from scipy import sparse

    ranges = group_ranges(page.n_types)
    start, end = ranges["neighbours"][0], ranges["around"][1]
    parts = [features[:, :start], neighbour_labels(page, words), features[:, end:]]
    return sparse.hstack(parts, format="csr", dtype=np.float32)


def _masks(texts: Sequence[str]) -> list[str]:
    known = {text: mask_of(text) for text in set(texts)}
    return [known[text] for text in texts]


def _text(page: Page, words: npt.NDArray[np.int64], shapes: Sequence[str]) -> sparse.csr_matrix:
    from sklearn.feature_extraction.text import HashingVectorizer

    texts = [page.texts[word] for word in words.tolist()]
    unique = {text: number for number, text in enumerate(dict.fromkeys(texts))}
    number = np.array([unique[text] for text in texts], dtype=np.int64)
    grams = HashingVectorizer(
        analyzer="char_wb", ngram_range=(1, 4), n_features=_TEXT_COLUMNS, alternate_sign=False
    ).transform(map(mask_of, unique))
    whole = _hashed(
        (
            [f"whole={text.strip().lower()}", f"length={min(len(text), 12)}", f"case={_case(text)}"]
            for text in unique
        ),
        _TEXT_COLUMNS,
    )
    shape = _hashed(([f"shape={shapes[word]}"] for word in words.tolist()), _TEXT_COLUMNS)
    return (2.0 * grams + whole)[number] + shape


def _hashed(tokens: Iterable[Iterable[str]], columns: int) -> sparse.csr_matrix:
    """Hash the tokens of n words: sparse, shape (n, columns)."""
    # Importing scikit-learn takes longer than a run that finds nothing to do.
    from sklearn.feature_extraction import FeatureHasher

    hasher = FeatureHasher(columns, input_type="string", alternate_sign=False)
    return hasher.transform(tokens)


def _case(text: str) -> str:
    letters = [character for character in text if character.isalpha()]
    if not letters:
        return "none"
    if all(character.isupper() for character in letters):
        return "upper"
    return "title" if letters[0].isupper() else "lower"


class _Rows:
    """Words of a page by row: what stands beside, above and below."""

    def __init__(self, page: Page) -> None:
        self.row = page.row
        n_rows = int(page.row[-1]) + 1 if page.n_words else 0
        self.start = np.searchsorted(page.row, np.arange(n_rows + 1))
        self.receipt = page.receipt[self.start[:-1]] if n_rows else page.receipt[:0]

    def words(self, row: int) -> range:
        return range(int(self.start[row]), int(self.start[row + 1]))

    def beside(self, row: int, offset: int) -> int | None:
        """Find the row `offset` rows further down on the same receipt."""
        other = row + offset
        if 0 <= other < len(self.receipt) and self.receipt[other] == self.receipt[row]:
            return other
        return None


def _row(page: Page, words: npt.NDArray[np.int64], shapes: Sequence[str]) -> sparse.csr_matrix:
    rows = _Rows(page)
    masks = _masks(page.texts)
    wordlike = [
        re.sub(r"[^a-z]", "", mask) if any(c.isalpha() for c in mask) else "" for mask in masks
    ]

    def tokens_of(row: int) -> list[str]:
        return [wordlike[word] for word in rows.words(row) if len(wordlike[word]) > 1]

    known: dict[int, list[str]] = {}

    def cached(row: int | None) -> list[str]:
        if row is None:
            return ["edge"]
        if row not in known:
            known[row] = tokens_of(row)
        return known[row]

    def tokens(word: int) -> list[str]:
        row = int(page.row[word])
        inside = rows.words(row)
        shape = shapes[word]
        left = masks[word - 1] if word > inside.start else "^"
        left_2 = masks[word - 2] if word > inside.start + 1 else "^"
        right = masks[word + 1] if word + 1 < inside.stop else "$"
        captions = [wordlike[other] for other in inside if other < word and wordlike[other]]
        following = [wordlike[other] for other in inside if other > word and wordlike[other]]
        caption = "".join(captions)[-24:]
        return [
            f"left={left}",
            f"left2={left_2} {left}",
            f"right={right}",
            f"left_shape={shapes[word - 1] if word > inside.start else '^'}",
            f"right_shape={shapes[word + 1] if word + 1 < inside.stop else '$'}",
            f"{shape} left={left}",
            f"{shape} right={right}",
            f"{shape} right_shape={shapes[word + 1] if word + 1 < inside.stop else '$'}",
            f"caption={caption}",
            *(f"gram={caption[at : at + 3]}" for at in range(max(len(caption) - 2, 0))),
            *(f"before={token}" for token in captions),
            *(f"{shape} before={token}" for token in captions),
            *(f"after={token}" for token in following),
            *(f"{shape} above={token}" for token in cached(rows.beside(row, -1))),
            *(f"{shape} below={token}" for token in cached(rows.beside(row, 1))),
            f"row={min(len(inside), 8)}",
            f"{shape} place={word - inside.start if word - inside.start < 4 else 'later'}",
            f"{shape} {'last' if word + 1 == inside.stop else 'inside'}",
            f"row_shapes={' '.join(shapes[other] for other in inside[:6])}",
        ]

    return _hashed(map(tokens, words.tolist()), _ROW_COLUMNS)


def _place(page: Page, words: npt.NDArray[np.int64], shapes: Sequence[str]) -> sparse.csr_matrix:
    first_row, last_row = _extent(page.receipt, page.row)
    money = np.array([shape == "money" for shape in shapes], dtype=bool)
    first_money, last_money = _extent(page.receipt[money], page.row[money], like=first_row)

    def bin_of(value: float) -> int:
        return -1 if math.isnan(value) else min(_BINS - 1, int(_BINS * value))

    def tokens(word: int) -> list[str]:
        receipt, row, shape = int(page.receipt[word]), int(page.row[word]), shapes[word]
        top, bottom = row - int(first_row[receipt]), int(last_row[receipt]) - row
        x, y = bin_of(float(page.x[word])), bin_of(float(page.y[word]))
        down = bin_of(top / max(top + bottom, 1))
        region = "none"
        if first_money[receipt] >= 0:
            before, after = int(first_money[receipt]) - row, row - int(last_money[receipt])
            region = "header" if before > 0 else "footer" if after > 0 else "body"
        height = float(page.height[word])
        return [
            f"x={x}",
            f"y={y}",
            f"down={down}",
            f"top={min(top, 12)}",
            f"bottom={min(bottom, 12)}",
            f"region={region}",
            f"{shape} region={region}",
            f"{shape} x={x}",
            f"{shape} y={y}",
            f"{shape} down={down}",
            f"{region} x={x}",
            f"height={-1 if math.isnan(height) else min(int(height * 5), 15)}",
        ]

    return _hashed(map(tokens, words.tolist()), _PLACE_COLUMNS)


def _extent(
    receipt: npt.NDArray[np.int64],
    row: npt.NDArray[np.int64],
    like: npt.NDArray[np.int64] | None = None,
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Find the first and last row of each receipt among some words; -1 for no row."""
    n = len(like) if like is not None else (int(receipt.max()) + 1 if len(receipt) else 0)
    first = np.full(n, np.iinfo(np.int64).max)
    last = np.full(n, -1, dtype=np.int64)
    np.minimum.at(first, receipt, row)
    np.maximum.at(last, receipt, row)
    return np.where(last < 0, -1, first), last


def neighbour_labels(page: Page, words: npt.NDArray[np.int64]) -> sparse.csr_matrix:
    """Sum up how the words around each word are labelled, trusted by status.

    Returns:
        Sparse matrix of shape (n, 6 * types): per label type the trust on the word to the left, to
        the right, elsewhere on the row, on the two rows above, on the two below, and on the rest of
        the receipt. Sums are capped at 1, except for those of the receipt, which are logarithms.
    """
    from scipy import sparse

    n_types = page.n_types
    votes = sparse.csr_matrix(
        (page.trust, (page.label_word, page.label_type)), shape=(page.n_words, n_types)
    )
    n_rows = int(page.row[-1]) + 1 if page.n_words else 0
    n_receipts = int(page.receipt[-1]) + 1 if page.n_words else 0
    row_of = sparse.csr_matrix(
        (np.ones(page.n_words), (page.row, np.arange(page.n_words))), shape=(n_rows, page.n_words)
    )
    by_row = (row_of @ votes).toarray()
    receipt_of_row = np.zeros(n_rows, dtype=np.int64)
    receipt_of_row[page.row] = page.receipt
    by_receipt = np.zeros((n_receipts, n_types))
    np.add.at(by_receipt, receipt_of_row, by_row)

    own = votes[words].toarray()
    row, receipt = page.row[words], page.receipt[words]

    def beside(offset: int) -> npt.NDArray[np.float64]:
        other = np.clip(words + offset, 0, page.n_words - 1)
        same = (page.row[other] == row) & (other != words)
        return np.asarray(votes[other].toarray() * same[:, None])

    def near_rows(offsets: Sequence[int]) -> npt.NDArray[np.float64]:
        total = np.zeros_like(own)
        for offset in offsets:
            other = np.clip(row + offset, 0, n_rows - 1)
            same = (receipt_of_row[other] == receipt) & (other == row + offset)
            total += by_row[other] * same[:, None]
        return total

    steps = range(1, _WINDOW + 1)
    on_row = by_row[row] - own
    above, below = near_rows([-step for step in steps]), near_rows(steps)
    left, right = beside(-1), beside(1)
    parts = [
        np.minimum(left, 1.0),
        np.minimum(right, 1.0),
        np.minimum(np.maximum(on_row - left - right, 0.0), 1.0),
        np.minimum(above, 1.0),
        np.minimum(below, 1.0),
        np.log1p(np.maximum(by_receipt[receipt] - own - on_row, 0.0)),
    ]
    return sparse.csr_matrix(np.hstack(parts).astype(np.float32))


def _arithmetic(
    page: Page, words: npt.NDArray[np.int64], shapes: Sequence[str]
) -> sparse.csr_matrix:
    from scipy import sparse

    found = amount_relations(page.receipt, page.row, page.texts)[words]
    money = np.array([shapes[word] == "money" for word in words.tolist()], dtype=bool)
    missing = ~found & money[:, None]
    return sparse.csr_matrix(np.hstack([found, missing]).astype(np.float32))
