-- What was written later counts as later, also where the clock was set back between: numbers decide.
-- Rows without a number are older than all that have one; among themselves their times decide.
ALTER TABLE batches ADD COLUMN number BIGINT;
ALTER TABLE quarantine ADD COLUMN number BIGINT;
ALTER TABLE llm_verdicts ADD COLUMN number BIGINT;
ALTER TABLE quality_history ADD COLUMN number BIGINT;
ALTER TABLE pushed_corrections ADD COLUMN number BIGINT;
ALTER TABLE review_answers ADD COLUMN number BIGINT;
ALTER TABLE review_reopenings ADD COLUMN number BIGINT;
CREATE OR REPLACE VIEW standing_answers AS
FROM review_answers ANTI JOIN review_withdrawals USING (answer_id)
QUALIFY row_number() OVER (
    PARTITION BY image_id, receipt_id, line_id, word_id, label, reviewer
    ORDER BY number DESC NULLS LAST, answered_at DESC, answer_id DESC) = 1;
