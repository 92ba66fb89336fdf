"""Review: what is proposed for each label, and what people say about it."""
