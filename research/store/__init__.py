"""Where a sweep lives: folders, locks, object stores."""
