"""The offline report: one page that needs no network, and the same figures as JSON and tables."""
