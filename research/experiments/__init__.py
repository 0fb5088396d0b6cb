"""Runs around a sweep: a single run, a reproduction, finalists, an ablation."""
