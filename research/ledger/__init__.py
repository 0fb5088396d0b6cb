"""The sweep's events, the settings they hold, and what follows from them."""
