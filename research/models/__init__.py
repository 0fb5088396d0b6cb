"""The uses of a trained model in a folder: evaluate, score, export, write its card."""
