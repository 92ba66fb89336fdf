"""Jobs at the OpenAI Batch API: submitted, watched, collected."""
