-- The models in force, newest last; the arrays are in files of the home, named by version.
CREATE TABLE suspicion_models (
    version VARCHAR NOT NULL, identity VARCHAR NOT NULL, labels BIGINT NOT NULL,
    validated BIGINT NOT NULL, fitted_labels BIGINT NOT NULL, wrong_share DOUBLE NOT NULL,
    accept_up_to DOUBLE NOT NULL, reject_from DOUBLE NOT NULL, accepted_wrong_bound DOUBLE,
    rejected_right_level DOUBLE, reason VARCHAR NOT NULL, seconds DOUBLE NOT NULL,
    fitted_at TIMESTAMPTZ NOT NULL
);
ALTER TABLE similarity_matches ADD COLUMN model_version VARCHAR;
-- Log odds against the label, per group of evidence; see core/suspicion.py.
ALTER TABLE similarity_matches ADD COLUMN contributions JSON;
-- Whether the word looks like one that carries no label.
ALTER TABLE similarity_matches ADD COLUMN no_label BOOLEAN DEFAULT false;
ALTER TABLE outliers ADD COLUMN line VARCHAR;
ALTER TABLE outliers ADD COLUMN evidence JSON;
ALTER TABLE outliers ADD COLUMN examples JSON;
