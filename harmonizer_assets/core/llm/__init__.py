"""The language-model path: from ambiguous labels to verdicts that are bought once."""
