"""DeepSpeed: the engine and its checkpoints. No other package imports it."""
