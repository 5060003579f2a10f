"""Raw data to shards, shards to batches."""
