-- What is known of a label apart from its status, and whether one that a person has rejected looks
-- right all the same; null where nobody has rejected it.
ALTER TABLE similarity_matches ADD COLUMN score_without_status DOUBLE;
ALTER TABLE similarity_matches ADD COLUMN looks_right BOOLEAN;
ALTER TABLE outliers ADD COLUMN validation_status VARCHAR;
-- Labels that people have rejected; in rows from before, they are among the outliers.
ALTER TABLE run_history ADD COLUMN rejected BIGINT DEFAULT 0;
-- A person's rejection is the decision; accepted rules decide before everything else.
CREATE OR REPLACE VIEW label_decisions AS
SELECT e.* REPLACE (
    CASE WHEN e.validation_status = 'INVALID' OR r.rule_id IS NOT NULL THEN true
        ELSE e.is_outlier END AS is_outlier,
    CASE WHEN e.validation_status = 'INVALID' THEN 'human'
        WHEN r.rule_id IS NOT NULL THEN 'rule' ELSE e.decided_by END AS decided_by,
    CASE WHEN e.validation_status = 'INVALID' THEN NULL
        WHEN r.rule_id IS NOT NULL THEN r.suggested_label ELSE e.suggested_label END
        AS suggested_label,
    CASE WHEN e.validation_status = 'INVALID' OR r.rule_id IS NOT NULL THEN 1.0
        ELSE e.confidence END AS confidence,
    CASE WHEN e.validation_status = 'INVALID' THEN 'a person has rejected it'
        WHEN r.rule_id IS NOT NULL
        THEN format('rule {} (version {}): {}', r.rule_id, r.version, r.sentence)
        ELSE e.reasoning END AS reasoning,
    CASE WHEN e.validation_status = 'INVALID' THEN NULL ELSE e.suggestion_confidence END
        AS suggestion_confidence)
FROM evidence_decisions e
LEFT JOIN rule_decisions r USING (image_id, receipt_id, line_id, word_id, label, merchant_key);
-- The labels that still stand: what is left to be found wrong is among them.
CREATE VIEW standing_decisions AS
FROM label_decisions WHERE validation_status <> 'INVALID';
-- What people have rejected, with the labels that are on the word in its place.
CREATE VIEW rejected_labels AS
WITH standing AS (
    SELECT image_id, receipt_id, line_id, word_id, list(label ORDER BY label) AS labels
    FROM labels WHERE validation_status <> 'INVALID' GROUP BY ALL
)
SELECT l.image_id, l.receipt_id, l.line_id, l.word_id, l.label, l.label AS label_type,
    l.merchant_key, l.merchant_name, w.text AS word_text,
    coalesce(s.looks_right, false) AS looks_right, s.score_without_status,
    coalesce(o.labels, []) AS replaced_by,
    CASE WHEN s.looks_right THEN format(
        '''{}'' is rejected as {}, but all else that is known about it says {} (probability {:.2f})',
        w.text, l.label, l.label, 1 - s.score_without_status)
        ELSE 'a person has rejected it' END AS reasoning
FROM labels l
LEFT JOIN words w USING (image_id, receipt_id, line_id, word_id)
LEFT JOIN similarity_matches s USING (image_id, receipt_id, line_id, word_id, label, merchant_key)
LEFT JOIN standing o USING (image_id, receipt_id, line_id, word_id)
WHERE l.validation_status = 'INVALID';
