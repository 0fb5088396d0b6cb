"""Weights & Biases: one process follows the ledger and keeps the runs equal to it."""
