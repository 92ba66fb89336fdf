-- Why nothing can be known about a label; null where something can.
ALTER TABLE similarity_matches ADD COLUMN unknown_because VARCHAR;
