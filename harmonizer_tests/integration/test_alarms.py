"""Alarms on receipts whose labels look like another merchant's, against a count by hand."""

from __future__ import annotations

from collections import Counter, defaultdict
from dataclasses import dataclass

import pyarrow as pa
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from harmonizer_assets.core.decide import alarms
from harmonizer_tests.support.receipts import table

MERCHANTS = ("a", "b", "c", "d")
DOCUMENTS = tuple(f"document {number}" for number in range(6))
RECEIPTS = [(merchant, number) for merchant in MERCHANTS for number in range(3)]


@dataclass(frozen=True)
class Labelled:
    """A labelled word: which document of others is nearest, and what it says of its merchant."""

    nearest: str
    says: str

    def similarities(self):
        own, others = {"disagrees": (0.5, 0.9), "agrees": (0.9, 0.5), "neither": (0.7, 0.71)}[
            self.says
        ]
        return {"own_similarity": own, "corpus_similarity": others}


words = st.lists(
    st.builds(
        Labelled,
        st.sampled_from(DOCUMENTS),
        st.sampled_from([*["disagrees"] * 8, "agrees", "neither"]),
    ),
    min_size=4,
    max_size=8,
)
homes = st.fixed_dictionaries(dict.fromkeys(RECEIPTS, words))
users = st.fixed_dictionaries(
    {document: st.sets(st.sampled_from([*MERCHANTS, "unknown"])) for document in DOCUMENTS}
)


@given(homes, users)
@settings(
    max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture], derandomize=True
)
def test_alarms_name_the_merchant_that_most_words_look_like(pipeline, home_of, used_by):
    fill(pipeline.warehouse, home_of, used_by)
    alarms.update_merchant_alarms(pipeline.warehouse)
    found = {
        (row["merchant_key"], int(row["image_id"].split("/")[1])): row["suggested_merchant_key"]
        for row in table(pipeline, "merchant_alarms")
    }
    assert found == counted(home_of, used_by)


def counted(home_of, used_by):
    """What is suspect, by a count of every word's votes."""
    found = {}
    for receipt, labelled in home_of.items():
        says = Counter(word.says for word in labelled)
        if len(labelled) < alarms.MIN_LABELS:
            continue
        if says["disagrees"] < alarms.MIN_SHARE * len(labelled):
            continue
        if says["disagrees"] < alarms.NEARLY_ALL * (says["disagrees"] + says["agrees"]):
            continue
        votes = Counter(
            merchant
            for word in labelled
            if word.says == "disagrees"
            for merchant in used_by[word.nearest] - {receipt[0], "unknown"}
        )
        if not votes:
            continue
        most = min(votes, key=lambda merchant: (-votes[merchant], merchant))
        if votes[most] >= alarms.MIN_CONCENTRATION * says["disagrees"]:
            found[receipt] = most
    return found


def fill(warehouse, home_of, used_by):
    """Replace what the tables hold of labels, documents and scores."""
    rows = defaultdict(list)

    def add(image, word, merchant, document, **scores):
        key = {"image_id": image, "receipt_id": 1, "line_id": 1, "word_id": word}
        rows["labels"].append(
            {**key, "label": "DATE", "validation_status": "PENDING", "merchant_name": merchant}
            | {"merchant_key": merchant, "batch_id": "batch", "batch_time": "2026-01-01"}
        )
        rows["word_documents"].append({**key, "document_id": document})
        if scores:
            counts = dict.fromkeys(("n_matches", "valid_matches"), 0)
            votes = ("merchant_for", "merchant_against", "corpus_for", "corpus_against")
            others = ("best_similarity", "mean_similarity", "outlier_score", *votes)
            texts = {"label": "DATE", "label_type": "DATE", "triage": "valid", "scorer": "model"}
            rows["similarity_matches"].append(
                {**key, **texts, **counts, **dict.fromkeys(others, 0.0), "merchant_key": merchant}
                | {"label_probability": 0.5, "competing_probability": 0.0, **scores}
            )

    for (merchant, number), labelled in home_of.items():
        for place, word in enumerate(labelled):
            nearest = {"nearest_document": word.nearest, **word.similarities()}
            add(f"{merchant}/{number}", place, merchant, "a document of its own", **nearest)
    for document, merchants in used_by.items():
        for merchant in merchants:
            add(f"user/{document}/{merchant}", 1, merchant, document)

    def replace(con):
        for name in ("labels", "word_documents", "similarity_matches"):
            con.execute(f"DELETE FROM {name}")
            con.register("made", pa.Table.from_pylist(rows[name]))
            con.execute(f"INSERT INTO {name} BY NAME SELECT * FROM made")

    warehouse.write(replace)
