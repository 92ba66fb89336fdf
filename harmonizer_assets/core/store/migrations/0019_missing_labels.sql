CREATE TABLE missing_labels (
    image_id VARCHAR NOT NULL, receipt_id BIGINT NOT NULL, line_id BIGINT NOT NULL,
    word_id BIGINT NOT NULL, label_type VARCHAR NOT NULL, merchant_key VARCHAR NOT NULL,
    merchant_name VARCHAR, word_text VARCHAR NOT NULL, line VARCHAR NOT NULL,
    score DOUBLE NOT NULL, is_missing BOOLEAN, reasoning VARCHAR NOT NULL
);
-- What the words of a merchant were searched with, so that only changed ones are searched again.
CREATE TABLE missing_label_searches (
    merchant_key VARCHAR NOT NULL, identity VARCHAR NOT NULL, fingerprint VARCHAR NOT NULL
);
-- Of words with these log odds of carrying a label, the share that does.
CREATE TABLE missing_label_calibration (
    identity VARCHAR NOT NULL, log_odds DOUBLE[] NOT NULL, share DOUBLE[] NOT NULL
);
