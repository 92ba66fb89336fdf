"""Score: votes of similar words, features of the page, outlier scores, and triage."""
