-- Documents removed from the vector index since it was written as a whole.
ALTER TABLE index_state ADD COLUMN removed BIGINT DEFAULT 0;
-- Append-only: what was deleted, by its ids, not what it was. A null id or label means all below.
-- Rows of batches up to `holds_until` stay away; for good where it is infinite.
CREATE TABLE deletions (
    image_id VARCHAR NOT NULL, receipt_id BIGINT, line_id BIGINT, word_id BIGINT, label VARCHAR,
    holds_until TIMESTAMPTZ NOT NULL, name VARCHAR NOT NULL, source VARCHAR NOT NULL,
    deleted_at TIMESTAMPTZ NOT NULL
);
-- Texts of deleted words until the last trace of them is gone; a null text stands for the rest.
CREATE TABLE pending_erasures (text VARCHAR);
ALTER TABLE batches ADD COLUMN words_deleted BIGINT DEFAULT 0;
ALTER TABLE batches ADD COLUMN labels_deleted BIGINT DEFAULT 0;
-- Rows that stay away because they were deleted.
ALTER TABLE batches ADD COLUMN words_withheld BIGINT DEFAULT 0;
ALTER TABLE batches ADD COLUMN labels_withheld BIGINT DEFAULT 0;
