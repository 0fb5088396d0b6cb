"""What is done with a trained model in a folder: evaluate, score, export, write its card."""
