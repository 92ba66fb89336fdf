"""Index: documents of labelled words and their vectors in Chroma."""
