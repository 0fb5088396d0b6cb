"""One driver session: what runs, what is written down, what is kept, and when it stops."""
