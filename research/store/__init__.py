"""The storage of sweeps: folders, locks, object stores."""
