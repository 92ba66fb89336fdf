-- Labels that a rule of the review policy has retired, and that nobody has changed since.
CREATE VIEW retired_by_policy AS
SELECT DISTINCT l.image_id, l.receipt_id, l.line_id, l.word_id, l.label, c.policy
FROM label_corrections c
JOIN labels l USING (image_id, receipt_id, line_id, word_id, label)
WHERE c.source = 'policy' AND l.batch_id = c.operation_id AND l.validation_status = 'INVALID';
-- What labels are evidence for: a label that a rule has retired no person has rejected.
CREATE VIEW labels_as_evidence AS
SELECT l.image_id, l.receipt_id, l.line_id, l.word_id, l.label, l.merchant_key, l.merchant_name,
    CASE WHEN r.label IS NULL THEN l.validation_status ELSE 'RETIRED' END AS validation_status
FROM labels l LEFT JOIN retired_by_policy r USING (image_id, receipt_id, line_id, word_id, label);
CREATE OR REPLACE VIEW label_decisions AS
SELECT e.* REPLACE (
    CASE WHEN e.validation_status = 'INVALID' OR r.rule_id IS NOT NULL THEN true
        ELSE e.is_outlier END AS is_outlier,
    CASE WHEN p.policy IS NOT NULL THEN 'policy'
        WHEN e.validation_status = 'INVALID' THEN 'human'
        WHEN r.rule_id IS NOT NULL THEN 'rule' ELSE e.decided_by END AS decided_by,
    CASE WHEN e.validation_status = 'INVALID' THEN NULL
        WHEN r.rule_id IS NOT NULL THEN r.suggested_label ELSE e.suggested_label END
        AS suggested_label,
    CASE WHEN e.validation_status = 'INVALID' OR r.rule_id IS NOT NULL THEN 1.0
        ELSE e.confidence END AS confidence,
    CASE WHEN p.policy IS NOT NULL
        THEN format('the rule {} of the review policy has retired it', p.policy)
        WHEN e.validation_status = 'INVALID' THEN 'a person has rejected it'
        WHEN r.rule_id IS NOT NULL
        THEN format('rule {} (version {}): {}', r.rule_id, r.version, r.sentence)
        ELSE e.reasoning END AS reasoning,
    CASE WHEN e.validation_status = 'INVALID' THEN NULL ELSE e.suggestion_confidence END
        AS suggestion_confidence)
FROM evidence_decisions e
LEFT JOIN rule_decisions r USING (image_id, receipt_id, line_id, word_id, label, merchant_key)
LEFT JOIN retired_by_policy p USING (image_id, receipt_id, line_id, word_id, label);
CREATE OR REPLACE VIEW rejected_labels AS
WITH standing AS (
    SELECT image_id, receipt_id, line_id, word_id, list(label ORDER BY label) AS labels
    FROM labels WHERE validation_status <> 'INVALID' GROUP BY ALL
)
SELECT l.image_id, l.receipt_id, l.line_id, l.word_id, l.label, l.label AS label_type,
    l.merchant_key, l.merchant_name, l.word_text,
    coalesce(s.looks_right, false) AS looks_right, s.score_without_status,
    coalesce(o.labels, []) AS replaced_by,
    CASE WHEN s.looks_right THEN format(
        '''{}'' is rejected as {}, but all else that is known about it says {} (probability {:.2f})',
        l.word_text, l.label, l.label, 1 - s.score_without_status)
        ELSE l.reasoning END AS reasoning
FROM label_decisions l
LEFT JOIN similarity_matches s USING (image_id, receipt_id, line_id, word_id, label, merchant_key)
LEFT JOIN standing o USING (image_id, receipt_id, line_id, word_id)
WHERE l.validation_status = 'INVALID';
