CREATE TABLE validation_queue (
    rank BIGINT NOT NULL, image_id VARCHAR NOT NULL, receipt_id BIGINT NOT NULL,
    line_id BIGINT NOT NULL, word_id BIGINT NOT NULL, label VARCHAR NOT NULL,
    label_type VARCHAR NOT NULL, merchant_key VARCHAR NOT NULL, merchant_name VARCHAR,
    word_text VARCHAR NOT NULL, outlier_score DOUBLE NOT NULL, likeliest_label VARCHAR,
    n_alike BIGINT NOT NULL, n_validated BIGINT NOT NULL, teaches DOUBLE NOT NULL,
    reasoning VARCHAR NOT NULL
);
