"""The views of a sweep: the live table, its page, the report, a notebook's tables."""
