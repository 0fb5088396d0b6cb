"""One trial on a worker: train, save, report."""
