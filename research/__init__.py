"""The harness: sweeps on Ray Tune, searched by Optuna, kept in a ledger, shown in Weights & Biases."""
