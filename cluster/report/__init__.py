"""`pose report`: scored runs as one page that needs nothing else."""
