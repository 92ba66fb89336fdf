"""What goes to an endpoint and what comes back: prompts, requests, replies, answers."""
