"""Training, evaluation and launching."""
