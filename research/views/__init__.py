"""What people look at: the live table, the page of a sweep, the report, a notebook's tables."""
