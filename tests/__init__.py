"""The tests, a package so that they and what they start can import `tests.support`."""
