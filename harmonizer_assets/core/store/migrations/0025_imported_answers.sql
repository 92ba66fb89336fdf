-- What an answer was imported from; see core/review/exchange. Null where somebody answered here.
ALTER TABLE review_answers ADD COLUMN import_id VARCHAR;
-- A view does not see columns that its table has got since.
CREATE OR REPLACE VIEW standing_answers AS
FROM review_answers ANTI JOIN review_withdrawals USING (answer_id)
QUALIFY row_number() OVER (
    PARTITION BY image_id, receipt_id, line_id, word_id, label, reviewer
    ORDER BY answered_at DESC, answer_id DESC) = 1;
