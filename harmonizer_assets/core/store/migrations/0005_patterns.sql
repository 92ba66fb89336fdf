CREATE TABLE label_patterns (
    pattern_id VARCHAR NOT NULL, label_type VARCHAR NOT NULL, mask VARCHAR NOT NULL,
    before VARCHAR, merchant_key VARCHAR, merchant_name VARCHAR, suggested_label VARCHAR,
    support BIGINT NOT NULL, against BIGINT NOT NULL, precision DOUBLE NOT NULL,
    receipts BIGINT NOT NULL, sentence VARCHAR NOT NULL
);
-- Append-only: a rule changes by a new version of it.
CREATE TABLE label_rules (
    rule_id VARCHAR NOT NULL, version BIGINT NOT NULL, status VARCHAR NOT NULL,
    label_type VARCHAR NOT NULL, mask VARCHAR NOT NULL, before VARCHAR, merchant_key VARCHAR,
    suggested_label VARCHAR, sentence VARCHAR NOT NULL, decided_by VARCHAR NOT NULL, note VARCHAR,
    decided_at TIMESTAMPTZ NOT NULL
);
CREATE TABLE receipt_alarms (
    image_id VARCHAR NOT NULL, receipt_id BIGINT NOT NULL, merchant_key VARCHAR NOT NULL,
    merchant_name VARCHAR, kind VARCHAR NOT NULL, n_labels BIGINT NOT NULL,
    n_outliers BIGINT NOT NULL, share DOUBLE NOT NULL, label_types VARCHAR[] NOT NULL,
    reasoning VARCHAR NOT NULL
);
CREATE VIEW current_rules AS
FROM label_rules QUALIFY row_number() OVER (PARTITION BY rule_id ORDER BY version DESC) = 1
    AND status = 'accepted';
-- What each accepted rule is about. A label that a person has decided is not a rule's to decide.
CREATE VIEW rule_matches AS
SELECT l.image_id, l.receipt_id, l.line_id, l.word_id, l.label, l.merchant_key,
    l.validation_status, r.rule_id, r.version, r.suggested_label, r.sentence,
    l.validation_status NOT IN ('VALID', 'INVALID') AS decides
FROM labels l
JOIN word_documents wd USING (image_id, receipt_id, line_id, word_id)
JOIN documents d USING (document_id)
JOIN current_rules r ON r.label_type = l.label AND r.mask = d.mask
WHERE (r.merchant_key IS NULL OR r.merchant_key = l.merchant_key)
    AND (r.before IS NULL OR r.before = list_last(string_split(d.left_context, ' ')));
-- The most specific rule decides, and among equals the one that was accepted last.
CREATE VIEW rule_decisions AS
SELECT m.* EXCLUDE (decides, validation_status)
FROM rule_matches m JOIN current_rules r USING (rule_id)
WHERE m.decides
QUALIFY row_number() OVER (PARTITION BY m.image_id, m.receipt_id, m.line_id, m.word_id, m.label
    ORDER BY (r.merchant_key IS NULL)::INTEGER + (r.before IS NULL)::INTEGER, r.decided_at DESC,
        r.rule_id) = 1;
-- A judge's verdict counts before similarity's. A word that looks like one without a label gets no
-- other label type proposed.
CREATE VIEW evidence_decisions AS
SELECT l.image_id, l.receipt_id, l.line_id, l.word_id, l.label, l.label AS label_type,
    l.merchant_key, l.merchant_name, w.text AS word_text, l.validation_status, s.outlier_score,
    CASE WHEN j.decided_by IS NOT NULL THEN j.is_outlier
        WHEN s.triage = 'valid' THEN false WHEN s.triage = 'outlier' THEN true END AS is_outlier,
    CASE WHEN j.decided_by IS NOT NULL THEN j.decided_by
        WHEN s.triage IN ('valid', 'outlier') THEN 'similarity'
        ELSE 'unresolved' END AS decided_by,
    CASE WHEN j.decided_by IN ('llm', 'cache') THEN j.suggested_label
        WHEN s.no_label THEN NULL
        WHEN j.decided_by IS NOT NULL THEN j.suggested_label
        WHEN s.triage = 'outlier' THEN s.competing_label END AS suggested_label,
    CASE WHEN j.decided_by IS NOT NULL THEN j.confidence
        WHEN s.triage = 'outlier' THEN s.outlier_score
        WHEN s.triage = 'valid' THEN 1 - s.outlier_score END AS confidence,
    j.reasoning,
    j.suggestion_confidence,
    l.extra
FROM labels l
LEFT JOIN words w USING (image_id, receipt_id, line_id, word_id)
LEFT JOIN similarity_matches s USING (image_id, receipt_id, line_id, word_id, label, merchant_key)
LEFT JOIN judgements j USING (image_id, receipt_id, line_id, word_id, label, merchant_key);
-- Accepted rules decide before everything else.
CREATE OR REPLACE VIEW label_decisions AS
SELECT e.* REPLACE (
    CASE WHEN r.rule_id IS NOT NULL THEN true ELSE e.is_outlier END AS is_outlier,
    CASE WHEN r.rule_id IS NOT NULL THEN 'rule' ELSE e.decided_by END AS decided_by,
    CASE WHEN r.rule_id IS NOT NULL THEN r.suggested_label ELSE e.suggested_label END
        AS suggested_label,
    CASE WHEN r.rule_id IS NOT NULL THEN 1.0 ELSE e.confidence END AS confidence,
    CASE WHEN r.rule_id IS NOT NULL
        THEN format('rule {} (version {}): {}', r.rule_id, r.version, r.sentence)
        ELSE e.reasoning END AS reasoning)
FROM evidence_decisions e
LEFT JOIN rule_decisions r USING (image_id, receipt_id, line_id, word_id, label, merchant_key);
-- Equal texts with the same wrong label are one finding.
CREATE VIEW findings AS
WITH counted AS (
    SELECT coalesce(d.mask, lower(trim(o.word_text))) AS mask, o.label_type, o.suggested_label,
        mode(o.word_text) AS word_text, count(*) AS n_labels,
        count(DISTINCT o.merchant_key) AS n_merchants,
        count(DISTINCT (o.image_id, o.receipt_id)) AS n_receipts,
        avg(o.confidence) AS mean_confidence, min_by(o.line, o.image_id) AS line
    FROM outliers o
    LEFT JOIN word_documents wd USING (image_id, receipt_id, line_id, word_id)
    LEFT JOIN documents d USING (document_id)
    WHERE o.is_outlier GROUP BY ALL
)
SELECT *, format('{}''{}'': labelled {}, {}; {}',
    CASE WHEN contains(mask, '0') THEN 'words like ' ELSE '' END, word_text, label_type,
    CASE n_labels WHEN 1 THEN 'once' ELSE n_labels || ' times' END,
    coalesce('it looks like ' || suggested_label, 'such words carry no label')) AS sentence
FROM counted;
-- Equal words in equal surroundings of one merchant, validated with different label types. Where
-- words carry both types, the two do not exclude each other.
CREATE VIEW label_contradictions AS
WITH validated AS (
    SELECT l.merchant_key, wd.document_id, l.image_id, l.receipt_id, l.line_id, l.word_id, l.label,
        l.merchant_name, w.text
    FROM labels l
    JOIN word_documents wd USING (image_id, receipt_id, line_id, word_id)
    JOIN words w USING (image_id, receipt_id, line_id, word_id)
    WHERE l.validation_status = 'VALID'
),
counted AS (
    SELECT merchant_key, document_id, label, count(*) AS n, min(text) AS text,
        min(merchant_name) AS merchant_name
    FROM validated GROUP BY merchant_key, document_id, label
),
together AS (
    SELECT DISTINCT a.label AS label_a, b.label AS label_b
    FROM validated a JOIN validated b USING (image_id, receipt_id, line_id, word_id)
    WHERE a.label < b.label
)
SELECT a.merchant_key, a.merchant_name, a.document_id, a.text AS word_text, a.label AS label_a,
    a.n AS n_a, b.label AS label_b, b.n AS n_b,
    format('''{}'' is validated as {} ({}) and as {} ({}) in the same place', a.text, a.label, a.n,
        b.label, b.n) AS sentence
FROM counted a JOIN counted b USING (merchant_key, document_id)
WHERE a.label < b.label AND (a.label, b.label) NOT IN (FROM together);
