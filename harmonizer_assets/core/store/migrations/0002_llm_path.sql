ALTER TABLE similarity_matches ADD COLUMN alternatives JSON;
ALTER TABLE llm_usage ADD COLUMN cached_tokens BIGINT DEFAULT 0;
ALTER TABLE judgements ADD COLUMN suggestion_confidence DOUBLE;
-- How much of each run's journal of answers is in the tables; see core/llm/journal.py.
CREATE TABLE llm_journals (name VARCHAR NOT NULL, folded BIGINT NOT NULL);
CREATE TABLE llm_batches (
    batch_id VARCHAR, submission_id VARCHAR NOT NULL, model VARCHAR NOT NULL,
    status VARCHAR NOT NULL, words BIGINT NOT NULL, run_id VARCHAR NOT NULL, error VARCHAR,
    submitted_at TIMESTAMPTZ NOT NULL, updated_at TIMESTAMPTZ NOT NULL
);
CREATE TABLE llm_batch_items (
    submission_id VARCHAR NOT NULL, custom_id VARCHAR NOT NULL, item_id VARCHAR NOT NULL,
    verdict_key VARCHAR NOT NULL, label_type VARCHAR NOT NULL, merchant_key VARCHAR NOT NULL,
    word_text VARCHAR NOT NULL, chance DOUBLE NOT NULL
);
-- A judge's verdict counts before similarity's: where clear cases were asked too, it is the better.
CREATE OR REPLACE VIEW label_decisions AS
SELECT l.image_id, l.receipt_id, l.line_id, l.word_id, l.label, l.label AS label_type,
    l.merchant_key, l.merchant_name, w.text AS word_text, l.validation_status, s.outlier_score,
    CASE WHEN j.decided_by IS NOT NULL THEN j.is_outlier
        WHEN s.triage = 'valid' THEN false WHEN s.triage = 'outlier' THEN true END AS is_outlier,
    CASE WHEN j.decided_by IS NOT NULL THEN j.decided_by
        WHEN s.triage IN ('valid', 'outlier') THEN 'similarity'
        ELSE 'unresolved' END AS decided_by,
    CASE WHEN j.decided_by IS NOT NULL THEN j.suggested_label
        WHEN s.triage = 'outlier' THEN s.competing_label END AS suggested_label,
    CASE WHEN j.decided_by IS NOT NULL THEN j.confidence
        WHEN s.triage = 'outlier' THEN s.outlier_score
        WHEN s.triage = 'valid' THEN 1 - s.outlier_score END AS confidence,
    j.reasoning,
    j.suggestion_confidence,
    l.extra
FROM labels l
LEFT JOIN words w USING (image_id, receipt_id, line_id, word_id)
LEFT JOIN similarity_matches s USING (image_id, receipt_id, line_id, word_id, label, merchant_key)
LEFT JOIN judgements j USING (image_id, receipt_id, line_id, word_id, label, merchant_key);
