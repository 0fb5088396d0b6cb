"""Search spaces to start from: each a plain function ``space(trial) -> TrainConfig`` in a file of its own."""
