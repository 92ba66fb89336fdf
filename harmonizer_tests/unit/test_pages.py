"""Pages: words and receipts of labels are found by their keys."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
from hypothesis import given
from hypothesis import strategies as st

from harmonizer_assets.core.records.label import WORD_KEY
from harmonizer_assets.core.score.pages import Page

KEYS = st.lists(
    st.tuples(st.sampled_from(["a", "b", "a|1", "🧾"]), *[st.sampled_from([0, 1, 7, 2**62])] * 3),
    max_size=12,
    unique=True,
)


def keys_table(keys):
    columns = [*zip(*keys, strict=True)] or [()] * 4
    kinds = [pa.string(), pa.int64(), pa.int64(), pa.int64()]
    return pa.table(
        {
            name: pa.array(column, kind)
            for name, column, kind in zip(WORD_KEY, columns, kinds, strict=True)
        }
    )


def page_of(keys):
    """A page of words without labels; all words of a receipt stand together."""
    ids = [*dict.fromkeys(key[:2] for key in keys)]
    receipt = np.array([ids.index(key[:2]) for key in keys], dtype=np.int64)
    nothing = np.zeros(len(keys))
    none = np.zeros(0, dtype=np.int64)
    return Page(
        keys=keys_table(keys),
        texts=[f"word {number}" for number in range(len(keys))],
        receipt=receipt,
        row=receipt,
        x=nothing,
        y=nothing,
        height=nothing,
        label_word=none,
        label_type=none,
        trust=np.zeros(0),
        statuses=[],
        n_types=1,
    )


@given(KEYS, KEYS)
def test_the_word_of_a_label_is_the_one_with_its_four_ids(words, labels):
    words = sorted(words)
    found = page_of(words).words_of(keys_table(labels))
    assert found.tolist() == [words.index(key) if key in words else -1 for key in labels]


@given(KEYS, KEYS)
def test_the_receipt_of_a_label_is_found_although_its_word_is_not_on_it(words, labels):
    words = sorted(words)
    page = page_of(words)
    ids = [*dict.fromkeys(key[:2] for key in words)]
    expected = [ids.index(key[:2]) if key[:2] in ids else -1 for key in labels]
    assert page.receipts_of(keys_table(labels)).tolist() == expected


def test_keys_are_told_apart_where_their_columns_have_more_combinations_than_64_bits():
    count = 2**17
    words = [(f"image-{n}", n, n, n) for n in range(count)]
    # Numbered in 64 bits, the first two would be those of the words 0 and 5.
    mixed = [(f"image-{2**13}", 0, 0, 0), (f"image-{5 + 2**13}", 5, 5, 5), ("image-1", 1, 1, 0)]
    labels = [words[0], words[5], words[count - 1], *mixed]
    assert page_of_many(words).words_of(keys_table(labels)).tolist() == [
        *(0, 5, count - 1),
        *(-1, -1, -1),
    ]


def page_of_many(keys):
    """The same as `page_of`, for words of which each is a receipt of its own."""
    page = page_of(keys[:1])
    number = np.arange(len(keys))
    return Page(
        **{
            **vars(page),
            "keys": keys_table(keys),
            "texts": [""] * len(keys),
            "receipt": number,
            "row": number,
        }
    )


@given(KEYS, st.data())
def test_receipts_that_are_kept_look_as_if_they_alone_had_been_read(words, data):
    words = sorted(words)
    page = page_of(words)
    numbers = sorted(set(page.receipt.tolist()))
    kept = data.draw(st.lists(st.sampled_from(numbers), unique=True)) if numbers else []
    chosen = [key for key, number in zip(words, page.receipt, strict=True) if number in kept]
    part, alone = page.of_receipts(np.array(kept, dtype=np.int64)), page_of(chosen)
    assert part.keys.to_pylist() == alone.keys.to_pylist()
    assert part.receipt.tolist() == alone.receipt.tolist()
    assert part.texts == [page.texts[words.index(key)] for key in chosen]
