-- Uniqueness of words and labels is kept by ingest's MERGE, not by indexes: DuckDB's indexes cost
-- more memory and time than the tables themselves.
CREATE TABLE words (
    image_id VARCHAR NOT NULL, receipt_id BIGINT NOT NULL, line_id BIGINT NOT NULL,
    word_id BIGINT NOT NULL, text VARCHAR NOT NULL,
    x DOUBLE, y DOUBLE, width DOUBLE, height DOUBLE,
    extra JSON, batch_id VARCHAR NOT NULL, batch_time TIMESTAMPTZ NOT NULL
);
CREATE TABLE labels (
    image_id VARCHAR NOT NULL, receipt_id BIGINT NOT NULL, line_id BIGINT NOT NULL,
    word_id BIGINT NOT NULL, label VARCHAR NOT NULL, validation_status VARCHAR NOT NULL,
    merchant_name VARCHAR, merchant_key VARCHAR NOT NULL,
    extra JSON, batch_id VARCHAR NOT NULL, batch_time TIMESTAMPTZ NOT NULL
);
CREATE TABLE quarantine (
    batch_id VARCHAR NOT NULL, file VARCHAR NOT NULL, row_number BIGINT, table_name VARCHAR,
    reason VARCHAR NOT NULL, row JSON, quarantined_at TIMESTAMPTZ NOT NULL
);
CREATE TABLE batches (
    batch_id VARCHAR NOT NULL, source VARCHAR NOT NULL, batch_time TIMESTAMPTZ NOT NULL,
    ingested_at TIMESTAMPTZ NOT NULL,
    words_read BIGINT NOT NULL, words_inserted BIGINT NOT NULL, words_updated BIGINT NOT NULL,
    labels_read BIGINT NOT NULL, labels_inserted BIGINT NOT NULL, labels_updated BIGINT NOT NULL,
    quarantined BIGINT NOT NULL
);
CREATE TABLE documents (
    document_id VARCHAR NOT NULL, mask VARCHAR NOT NULL, left_context VARCHAR NOT NULL,
    right_context VARCHAR NOT NULL, row_context VARCHAR NOT NULL,
    x_bin UTINYINT NOT NULL, y_bin UTINYINT NOT NULL,
    row_bin UTINYINT NOT NULL, column_bin UTINYINT NOT NULL
);
CREATE TABLE word_documents (
    image_id VARCHAR NOT NULL, receipt_id BIGINT NOT NULL, line_id BIGINT NOT NULL,
    word_id BIGINT NOT NULL, document_id VARCHAR NOT NULL
);
CREATE TABLE document_metadata (
    document_id VARCHAR NOT NULL, merchants VARCHAR[] NOT NULL, label_types VARCHAR[] NOT NULL,
    statuses VARCHAR[] NOT NULL, labels BIGINT NOT NULL
);
CREATE TABLE index_state (
    embedder VARCHAR NOT NULL, embedder_version VARCHAR NOT NULL, dimensions INTEGER NOT NULL,
    updated_at TIMESTAMPTZ NOT NULL
);
CREATE TABLE similarity_matches (
    image_id VARCHAR NOT NULL, receipt_id BIGINT NOT NULL, line_id BIGINT NOT NULL,
    word_id BIGINT NOT NULL, label VARCHAR NOT NULL,
    label_type VARCHAR NOT NULL, merchant_key VARCHAR NOT NULL,
    n_matches INTEGER NOT NULL, best_similarity DOUBLE NOT NULL, mean_similarity DOUBLE NOT NULL,
    outlier_score DOUBLE NOT NULL, triage VARCHAR NOT NULL,
    valid_matches INTEGER NOT NULL, label_probability DOUBLE NOT NULL,
    competing_label VARCHAR, competing_probability DOUBLE NOT NULL,
    merchant_for DOUBLE NOT NULL, merchant_against DOUBLE NOT NULL,
    corpus_for DOUBLE NOT NULL, corpus_against DOUBLE NOT NULL,
    own_similarity DOUBLE NOT NULL, corpus_similarity DOUBLE NOT NULL, nearest_document VARCHAR,
    scorer VARCHAR NOT NULL
);
CREATE TABLE judgements (
    image_id VARCHAR NOT NULL, receipt_id BIGINT NOT NULL, line_id BIGINT NOT NULL,
    word_id BIGINT NOT NULL, label VARCHAR NOT NULL,
    label_type VARCHAR NOT NULL, merchant_key VARCHAR NOT NULL,
    is_outlier BOOLEAN, decided_by VARCHAR NOT NULL, suggested_label VARCHAR, confidence DOUBLE,
    reasoning VARCHAR, verdict_key VARCHAR
);
CREATE TABLE llm_verdicts (
    verdict_key VARCHAR NOT NULL, model VARCHAR NOT NULL, prompt_version VARCHAR NOT NULL,
    label_type VARCHAR NOT NULL, merchant_key VARCHAR NOT NULL, word_text VARCHAR NOT NULL,
    is_outlier BOOLEAN NOT NULL, suggested_label VARCHAR, confidence DOUBLE, reasoning VARCHAR,
    prompt_tokens BIGINT, completion_tokens BIGINT, cost_usd DOUBLE,
    created_at TIMESTAMPTZ NOT NULL
);
CREATE TABLE outliers (
    image_id VARCHAR NOT NULL, receipt_id BIGINT NOT NULL, line_id BIGINT NOT NULL,
    word_id BIGINT NOT NULL, label VARCHAR NOT NULL,
    label_type VARCHAR NOT NULL, merchant_key VARCHAR NOT NULL, merchant_name VARCHAR,
    word_text VARCHAR, outlier_score DOUBLE, decided_by VARCHAR NOT NULL, is_outlier BOOLEAN,
    suggested_label VARCHAR, confidence DOUBLE, reasoning VARCHAR
);
CREATE TABLE dead_letters (
    image_id VARCHAR NOT NULL, receipt_id BIGINT NOT NULL, line_id BIGINT NOT NULL,
    word_id BIGINT NOT NULL, label VARCHAR NOT NULL,
    stage VARCHAR NOT NULL, error VARCHAR NOT NULL, attempts BIGINT NOT NULL,
    first_failed_at TIMESTAMPTZ NOT NULL, last_failed_at TIMESTAMPTZ NOT NULL
);
CREATE TABLE llm_usage (
    run_id VARCHAR NOT NULL, label_type VARCHAR NOT NULL, merchant_key VARCHAR NOT NULL,
    calls BIGINT NOT NULL, words_asked BIGINT NOT NULL, cache_hits BIGINT NOT NULL,
    skipped_by_similarity BIGINT NOT NULL,
    prompt_tokens BIGINT NOT NULL, completion_tokens BIGINT NOT NULL, cost_usd DOUBLE,
    retries BIGINT NOT NULL, rate_limited BIGINT NOT NULL, wall_seconds DOUBLE NOT NULL
);
CREATE TABLE merchant_alarms (
    image_id VARCHAR NOT NULL, receipt_id BIGINT NOT NULL, merchant_key VARCHAR NOT NULL,
    merchant_name VARCHAR, n_labels INTEGER NOT NULL, n_disagree INTEGER NOT NULL,
    share DOUBLE NOT NULL, suggested_merchant_key VARCHAR, suggested_merchant_name VARCHAR,
    reasoning VARCHAR NOT NULL
);
CREATE TABLE partition_state (
    asset VARCHAR NOT NULL, label_type VARCHAR NOT NULL, merchant_key VARCHAR NOT NULL,
    fingerprint VARCHAR NOT NULL, labels BIGINT NOT NULL, run_id VARCHAR NOT NULL,
    computed_at TIMESTAMPTZ NOT NULL
);
CREATE VIEW label_partitions AS
SELECT label AS label_type, merchant_key, count(*) AS labels FROM labels GROUP BY ALL;
CREATE VIEW label_decisions AS
SELECT l.image_id, l.receipt_id, l.line_id, l.word_id, l.label, l.label AS label_type,
    l.merchant_key, l.merchant_name, w.text AS word_text, l.validation_status, s.outlier_score,
    CASE s.triage WHEN 'valid' THEN false WHEN 'outlier' THEN true ELSE j.is_outlier END
        AS is_outlier,
    CASE WHEN s.triage IN ('valid', 'outlier') THEN 'similarity'
        ELSE coalesce(j.decided_by, 'unresolved') END AS decided_by,
    CASE s.triage WHEN 'outlier' THEN s.competing_label
        WHEN 'ambiguous' THEN j.suggested_label END AS suggested_label,
    CASE s.triage WHEN 'outlier' THEN s.outlier_score WHEN 'valid' THEN 1 - s.outlier_score
        ELSE j.confidence END AS confidence,
    CASE s.triage WHEN 'ambiguous' THEN j.reasoning END AS reasoning,
    l.extra
FROM labels l
LEFT JOIN words w USING (image_id, receipt_id, line_id, word_id)
LEFT JOIN similarity_matches s USING (image_id, receipt_id, line_id, word_id, label, merchant_key)
LEFT JOIN judgements j USING (image_id, receipt_id, line_id, word_id, label, merchant_key);
