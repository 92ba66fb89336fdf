-- What is proposed for each label. What failed for technical reasons proposes nothing: a model that
-- was not reached, a word that has not arrived, a budget that was used up.
CREATE OR REPLACE VIEW proposals AS
WITH decided AS (
    SELECT d.image_id, d.receipt_id, d.line_id, d.word_id, d.label, d.label_type, d.merchant_key,
        d.merchant_name, d.word_text, d.validation_status, d.outlier_score, d.decided_by,
        d.is_outlier, d.confidence, d.reasoning AS said, nullif(d.suggested_label, d.label) AS to_label,
        l.batch_id, l.batch_time, coalesce(x.mask, lower(trim(d.word_text))) AS mask,
        s.looks_right, s.unknown_because, s.competing_label, d.suggested_label AS named
    FROM label_decisions d
    JOIN labels l USING (image_id, receipt_id, line_id, word_id, label, merchant_key)
    LEFT JOIN similarity_matches s
        USING (image_id, receipt_id, line_id, word_id, label, merchant_key)
    LEFT JOIN word_documents wd USING (image_id, receipt_id, line_id, word_id)
    LEFT JOIN documents x USING (document_id)
    WHERE d.word_text IS NOT NULL
),
acted AS (
    SELECT *, CASE
        WHEN validation_status = 'INVALID' THEN CASE WHEN looks_right THEN 'ask' END
        WHEN is_outlier AND to_label IS NOT NULL THEN 'move'
        WHEN is_outlier THEN 'mark_invalid'
        WHEN NOT is_outlier AND validation_status = 'VALID' THEN 'keep'
        WHEN NOT is_outlier THEN 'confirm'
        -- A question that failed is unresolved for another reason than that nothing can be known.
        WHEN decided_by = 'unresolved' AND (said = unknown_because OR named IS NOT NULL)
            THEN 'ask' END AS action
    FROM decided
),
proposed AS (
    SELECT * REPLACE (CASE WHEN action = 'move' THEN to_label END AS to_label) FROM acted
    WHERE action IS NOT NULL
)
SELECT p.* EXCLUDE (said, looks_right, unknown_because, named, competing_label),
    coalesce(o.reasoning, p.said) AS reasoning, o.line,
    left(md5(concat_ws(chr(31), p.label_type, p.action, coalesce(p.to_label, ''), p.mask)), 12)
        AS kind_id,
    count(*) OVER (PARTITION BY p.label_type, p.action, p.to_label, p.mask) AS n_alike,
    r.rule_id, j.verdict_key, v.model, v.prompt_version, t.run_id
FROM proposed p
LEFT JOIN outliers o USING (image_id, receipt_id, line_id, word_id, label, merchant_key)
LEFT JOIN rule_decisions r USING (image_id, receipt_id, line_id, word_id, label, merchant_key)
LEFT JOIN judgements j USING (image_id, receipt_id, line_id, word_id, label, merchant_key)
LEFT JOIN (
    SELECT DISTINCT ON (verdict_key) verdict_key, model, prompt_version FROM llm_verdicts
) v ON v.verdict_key = j.verdict_key
LEFT JOIN partition_state t ON t.asset = 'outliers' AND t.label_type = p.label_type
    AND t.merchant_key = p.merchant_key;
