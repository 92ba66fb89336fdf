"""Column schemas of the tables, shown in the UI."""

from __future__ import annotations

from dagster import TableColumn, TableSchema

_KEY = [
    TableColumn("image_id", "string", description="The image that holds the receipt"),
    TableColumn("receipt_id", "int", description="The receipt within the image"),
    TableColumn("line_id", "int", description="The line within the receipt, as OCR read it"),
    TableColumn("word_id", "int", description="The word within the line"),
]
_LABEL_KEY = [*_KEY, TableColumn("label", "string", description="The label on the word")]
_PARTITION = [
    TableColumn("label_type", "string", description="First half of the partition key"),
    TableColumn("merchant_key", "string", description="Second half of the partition key"),
]

WORDS = TableSchema(
    [
        *_KEY,
        TableColumn("text", "string", description="The word as OCR read it"),
        TableColumn("x", "float", description="Left edge, 0..1 of the image"),
        TableColumn("y", "float", description="Upper edge, 0..1 of the image, 0 at the top"),
        TableColumn("width", "float", description="0..1 of the image"),
        TableColumn("height", "float", description="0..1 of the image"),
    ]
)
LABELS = TableSchema(
    [
        *_LABEL_KEY,
        TableColumn(
            "validation_status", "string", description="VALID, INVALID, PENDING, NEEDS_REVIEW, NONE"
        ),
        TableColumn("merchant_name", "string", description="As it arrived"),
        TableColumn("merchant_key", "string", description="Slug of the merchant's name seen first"),
    ]
)
QUARANTINE = TableSchema(
    [
        TableColumn("file", "string", description="The file that held the row"),
        TableColumn("row_number", "int", description="Row (Parquet) or line (CSV, NDJSON)"),
        TableColumn("source_row", "string", description="Its place in a file of another format"),
        TableColumn("reason", "string", description="Why it was quarantined"),
        TableColumn("row", "json", description="The row as it arrived"),
    ]
)
SIMILARITY_MATCHES = TableSchema(
    [
        *_LABEL_KEY,
        *_PARTITION,
        TableColumn("n_matches", "int", description="Same type, same merchant, similar enough"),
        TableColumn("best_similarity", "float", description="Highest of the same type, 0..1"),
        TableColumn("mean_similarity", "float", description="Mean over the matches, 0..1"),
        TableColumn("outlier_score", "float", description="0..1, higher is more suspicious"),
        TableColumn("triage", "string", description="valid, outlier, ambiguous or unasked"),
        TableColumn("looks_right", "bool", description="Null unless a person has rejected it"),
        TableColumn("competing_label", "string", description="The most probable other type"),
    ]
)
LABEL_CORRECTIONS = TableSchema(
    [
        TableColumn("correction_id", "int", description="Number; none is given twice"),
        TableColumn("operation_id", "string", description="The apply or redo that has made it"),
        *_LABEL_KEY,
        TableColumn("action", "string", description="confirm, mark_invalid, move or ask"),
        TableColumn("to_label", "string", description="The label that takes its place"),
        TableColumn("source", "string", description="person, kind or policy"),
        TableColumn("actor", "string", description="The person, or the rule of the policy"),
        TableColumn("reasoning", "string", description="Why"),
    ]
)
SUSPICION_MODELS = TableSchema(
    [
        TableColumn("version", "string", description="Hash of what it was fitted on, and how"),
        TableColumn("labels", "int", description="Labels in the home when it was fitted"),
        TableColumn("validated", "int", description="How many of them were VALID"),
        TableColumn("wrong_share", "float", description="Estimated among unvalidated labels"),
        TableColumn("accept_up_to", "float", description="P(wrong) accepted without a question"),
        TableColumn("reject_from", "float", description="P(wrong) rejected without a question"),
        TableColumn("accepted_wrong_bound", "float", description="Guarantee on the accepted"),
        TableColumn("rejected_right_level", "float", description="Guarantee on the rejected"),
        TableColumn("reason", "string", description="Why there is no guarantee"),
    ]
)
QUALITY_HISTORY = TableSchema(
    [
        TableColumn("evaluated_at", "timestamp", description="When"),
        TableColumn("number", "int", description="Orders evaluations"),
        TableColumn("truth_file", "string", description="Against what"),
        TableColumn("label_type", "string", description="Null: all labels together"),
        TableColumn("precision", "float", description="Of the flagged, how many are wrong"),
        TableColumn("recall", "float", description="Of the wrong, how many were flagged"),
        TableColumn("auprc", "float", description="Area under the precision-recall curve"),
        TableColumn("ece", "float", description="Expected calibration error"),
        TableColumn("asked_share", "float", description="Labels that the thresholds left open"),
        TableColumn("accepted_wrong_share", "float", description="Wrong ones among the accepted"),
    ]
)
LABEL_PATTERNS = TableSchema(
    [
        TableColumn("pattern_id", "string", description="The id for `harmonizer rules accept`"),
        TableColumn("label_type", "string", description="The label that is wrong"),
        TableColumn("mask", "string", description="The text, in lower case, digits masked"),
        TableColumn("before", "string", description="The word before it; null: any"),
        TableColumn("merchant_key", "string", description="Null: every merchant"),
        TableColumn("suggested_label", "string", description="Null: it carries no label"),
        TableColumn("support", "int", description="Labels found wrong that it covers"),
        TableColumn("against", "int", description="Labels found right that it covers"),
        TableColumn("precision", "float", description="support / (support + against)"),
        TableColumn("sentence", "string", description="The rule in words"),
    ]
)
LLM_VERDICTS = TableSchema(
    [
        TableColumn("verdict_key", "string", description="Hash of all that decides the answer"),
        TableColumn("model", "string", description="The model that answered"),
        TableColumn("prompt_version", "string", description="The prompt it answered"),
        *_PARTITION,
        TableColumn("word_text", "string", description="The word that was asked about"),
        TableColumn("is_outlier", "bool", description="The verdict"),
        TableColumn("suggested_label", "string", description="The right type, if it is one"),
        TableColumn("confidence", "float", description="0..1, combined with the outlier score"),
        TableColumn("reasoning", "string", description="Why, for outliers"),
        TableColumn("prompt_tokens", "int", description="Tokens of the question"),
        TableColumn("completion_tokens", "int", description="Tokens of the answer"),
        TableColumn("cost_usd", "float", description="Null where the price is not known"),
        TableColumn("created_at", "timestamp", description="When the answer came"),
        TableColumn("number", "int", description="Orders answers by when they were stored"),
    ]
)
LLM_USAGE = TableSchema(
    [
        TableColumn("run_id", "string", description="The Dagster run"),
        *_PARTITION,
        TableColumn("calls", "int", description="Calls sent, retries included"),
        TableColumn("words_asked", "int", description="Distinct questions sent"),
        TableColumn("cache_hits", "int", description="Questions that were answered already"),
        TableColumn("skipped_by_similarity", "int", description="Labels decided without a model"),
        TableColumn("prompt_tokens", "int", description="Tokens of the questions"),
        TableColumn("completion_tokens", "int", description="Tokens of the answers"),
        TableColumn("cost_usd", "float", description="Null where the price is not known"),
        TableColumn("retries", "int", description="Calls that repeated a question"),
        TableColumn("rate_limited", "int", description="Calls that were refused with 429"),
        TableColumn("wall_seconds", "float", description="From the first call to the last answer"),
    ]
)
OUTLIERS = TableSchema(
    [
        *_LABEL_KEY,
        *_PARTITION,
        TableColumn("merchant_name", "string", description="Display name"),
        TableColumn("word_text", "string", description="The word as OCR read it"),
        TableColumn("validation_status", "string", description="Of the label; never INVALID"),
        TableColumn("outlier_score", "float", description="0..1, higher is more suspicious"),
        TableColumn(
            "decided_by", "string", description="similarity, cache, llm, offline_judge, unresolved"
        ),
        TableColumn("is_outlier", "bool", description="Null where it is unresolved"),
        TableColumn("suggested_label", "string", description="The label type proposed instead"),
        TableColumn("confidence", "float", description="0..1"),
        TableColumn("reasoning", "string", description="Why, in one sentence"),
        TableColumn("line", "string", description="Its row on the receipt, the word marked"),
        TableColumn("evidence", "json", description="Evidence by group, with log odds"),
        TableColumn("examples", "json", description="Similar words labelled so, and otherwise"),
    ]
)
MERCHANT_ALARMS = TableSchema(
    [
        TableColumn("image_id", "string", description="The image that holds the receipt"),
        TableColumn("receipt_id", "int", description="The receipt within the image"),
        TableColumn("merchant_key", "string", description="The suspect merchant"),
        TableColumn("share", "float", description="Labels that disagree with that merchant"),
        TableColumn("suggested_merchant_key", "string", description="Whose labels they look like"),
        TableColumn("reasoning", "string", description="Why"),
    ]
)
MISSING_LABELS = TableSchema(
    [
        *_KEY,
        TableColumn("label_type", "string", description="The proposed label type"),
        TableColumn("merchant_key", "string", description="The merchant of the receipt"),
        TableColumn("word_text", "string", description="The word as OCR read it"),
        TableColumn("line", "string", description="Its row on the receipt, the word marked"),
        TableColumn("score", "float", description="Share of words like it that carry that type"),
        TableColumn("is_missing", "bool", description="True where it was decided, by the settings"),
        TableColumn("reasoning", "string", description="Why"),
    ]
)
VALIDATION_QUEUE = TableSchema(
    [
        TableColumn("rank", "int", description="1 for the most useful"),
        *_LABEL_KEY,
        *_PARTITION,
        TableColumn("word_text", "string", description="The word as OCR read it"),
        TableColumn("outlier_score", "float", description="0..1, higher is more suspicious"),
        TableColumn("likeliest_label", "string", description="What it could be; null for no label"),
        TableColumn("n_alike", "int", description="Labels of that kind that nobody validated"),
        TableColumn("n_validated", "int", description="Labels of that kind that people validated"),
        TableColumn("teaches", "float", description="What the order is by"),
        TableColumn("reasoning", "string", description="Why"),
    ]
)
RECEIPT_ALARMS = TableSchema(
    [
        TableColumn("image_id", "string", description="The image that holds the receipt"),
        TableColumn("receipt_id", "int", description="The receipt within the image"),
        TableColumn("merchant_key", "string", description="The merchant of the receipt"),
        TableColumn("kind", "string", description="columns_shifted or many_types"),
        TableColumn("share", "float", description="Labels of the receipt that are wrong"),
        TableColumn("reasoning", "string", description="What has moved where"),
    ]
)
