-- Labels that a batch brought as they were before they had been corrected.
ALTER TABLE batches ADD COLUMN labels_repeated BIGINT DEFAULT 0;
