-- The merchant of each name as it is written; see core/merchants. `since` is the time of the
-- earliest batch that held the name, `first_labels` how many labels had it there, `own_key` the key
-- that the name has where it is a merchant of its own. Names from before are looked at by the next
-- run that ingests.
CREATE TABLE merchant_names (
    name VARCHAR NOT NULL, merchant VARCHAR NOT NULL, how VARCHAR NOT NULL,
    since TIMESTAMPTZ NOT NULL, merchant_key VARCHAR NOT NULL, own_key VARCHAR NOT NULL,
    first_labels BIGINT NOT NULL
);
INSERT INTO merchant_names
SELECT merchant_name, trim(merchant_name), 'itself', min(batch_time), merchant_key, merchant_key,
    count(*)
FROM labels WHERE merchant_name IS NOT NULL AND merchant_key <> 'unknown'
GROUP BY merchant_name, merchant_key;
-- What the merchants were found from; while it is the same, they are.
CREATE TABLE merchant_state (inputs VARCHAR NOT NULL);
-- Answers that had decided labels when their merchant changed: they still count, see
-- core/judge/llm/memory/carried.py.
CREATE TABLE carried_answers (
    image_id VARCHAR NOT NULL, receipt_id BIGINT NOT NULL, line_id BIGINT NOT NULL,
    word_id BIGINT NOT NULL, label VARCHAR NOT NULL, verdict_key VARCHAR NOT NULL
);
-- Questions that were asked in other words while their labels had another merchant.
CREATE TABLE answer_aliases (verdict_key VARCHAR NOT NULL, answered_by VARCHAR NOT NULL);
-- A rule about one merchant follows the name whose key it was accepted with.
CREATE OR REPLACE VIEW rule_matches AS
SELECT l.image_id, l.receipt_id, l.line_id, l.word_id, l.label, l.merchant_key,
    l.validation_status, r.rule_id, r.version, r.suggested_label, r.sentence,
    l.validation_status NOT IN ('VALID', 'INVALID') AS decides
FROM labels l
JOIN word_documents wd USING (image_id, receipt_id, line_id, word_id)
JOIN documents d USING (document_id)
JOIN current_rules r ON r.label_type = l.label AND r.mask = d.mask
LEFT JOIN (SELECT DISTINCT own_key, merchant_key FROM merchant_names) m
    ON m.own_key = r.merchant_key
WHERE (r.merchant_key IS NULL OR coalesce(m.merchant_key, r.merchant_key) = l.merchant_key)
    AND (r.before IS NULL OR r.before = list_last(string_split(d.left_context, ' ')));
