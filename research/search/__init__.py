"""Spaces, samplers, the Optuna study as a view of the ledger, and early-stopping decisions."""
