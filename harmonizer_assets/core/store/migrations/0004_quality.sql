-- One row per evaluation, and one per label type of it; label_type is null for all labels together.
CREATE TABLE quality_history (
    evaluated_at TIMESTAMPTZ NOT NULL, run_id VARCHAR NOT NULL, truth_file VARCHAR NOT NULL,
    truth_sha256 VARCHAR NOT NULL, label_type VARCHAR,
    labels BIGINT NOT NULL, errors BIGINT NOT NULL, flagged BIGINT NOT NULL, found BIGINT NOT NULL,
    unresolved BIGINT NOT NULL, precision DOUBLE, recall DOUBLE, f1 DOUBLE, auprc DOUBLE,
    auroc DOUBLE, precision_at_errors DOUBLE, precision_at_100 DOUBLE, best_f1 DOUBLE, ece DOUBLE,
    brier DOUBLE, asked BIGINT NOT NULL, asked_share DOUBLE, accepted_wrong_share DOUBLE,
    accepted_wrong_bound DOUBLE, rejected_right_share DOUBLE, rejected_right_bound DOUBLE,
    suggestion_accuracy DOUBLE
);
