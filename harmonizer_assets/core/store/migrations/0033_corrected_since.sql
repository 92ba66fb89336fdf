-- Labels that have been corrected: what the last batch had said before their latest corrections, and
-- what they are by those. A batch may have come between two corrections.
CREATE OR REPLACE VIEW corrected_labels AS
SELECT image_id, receipt_id, line_id, word_id, label,
    arg_max(struct_pack(v := c.row_before), correction_id) FILTER (o.operation_id IS NULL).v
        AS row_before,
    arg_max(struct_pack(v := c.row_after), correction_id).v AS row_after
FROM label_row_changes c
SEMI JOIN corrections_in_force USING (correction_id)
LEFT JOIN label_operations o ON o.operation_id = c.row_before.batch_id
GROUP BY ALL;
