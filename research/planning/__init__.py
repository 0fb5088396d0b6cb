"""What is decided or refused before a sweep starts."""
