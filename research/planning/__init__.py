"""Decisions and refusals before a sweep starts."""
