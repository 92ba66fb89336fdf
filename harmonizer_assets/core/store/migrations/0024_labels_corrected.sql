-- The labels that corrections have touched, as they are now, for whoever keeps labels elsewhere: a
-- batch of the shape that came in. A label that was added and taken back is marked as deleted.
CREATE VIEW labels_corrected AS
SELECT c.image_id, c.receipt_id, c.line_id, c.word_id, c.label,
    coalesce(l.validation_status, c.last.validation_status) AS validation_status,
    CASE WHEN l.label IS NULL THEN c.last.merchant_name ELSE l.merchant_name END AS merchant_name,
    coalesce(l.merchant_key, c.merchant_key) AS merchant_key, l.extra,
    l.label IS NULL AS deleted
FROM (
    SELECT image_id, receipt_id, line_id, word_id, label,
        arg_max(merchant_key, correction_id) AS merchant_key,
        arg_max(coalesce(row_after, row_before), correction_id) AS last
    FROM label_row_changes GROUP BY ALL
) c
LEFT JOIN labels l USING (image_id, receipt_id, line_id, word_id, label);
-- How often people agree that a flagged label is wrong, by who flagged it, week by week.
CREATE VIEW decision_precision AS
SELECT date_trunc('week', answered_at)::DATE AS week, decided_by, count(*) AS answers,
    count(*) FILTER (WHERE verdict = 'wrong') AS wrong,
    count(*) FILTER (WHERE verdict = 'wrong') / count(*) AS precision,
    count(*) FILTER (WHERE verdict = 'wrong' AND to_label IS NOT DISTINCT FROM proposed_to)
        / count(*) AS suggestion_precision
FROM standing_answers
WHERE verdict <> 'skip' AND proposed_action IN ('move', 'mark_invalid') GROUP BY ALL;
