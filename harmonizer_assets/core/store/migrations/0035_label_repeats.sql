-- Batches that last said again what had been corrected, by label. The row is the correction's, but data
-- from before such a batch is older than what was last said about the label.
CREATE TABLE label_repeats (
    image_id VARCHAR NOT NULL, receipt_id BIGINT NOT NULL, line_id BIGINT NOT NULL,
    word_id BIGINT NOT NULL, label VARCHAR NOT NULL, batch_id VARCHAR NOT NULL
);
