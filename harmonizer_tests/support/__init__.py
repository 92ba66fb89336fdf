"""What tests share: receipts, servers, a simulated endpoint, a served home."""
