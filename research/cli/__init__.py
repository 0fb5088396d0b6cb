"""The command line: one module for each group of verbs; a verb is its signature and one call."""
