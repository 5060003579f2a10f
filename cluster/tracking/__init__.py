"""What a run leaves behind: the journal (`metrics.jsonl`), its delivery to MLflow, and MLflow's web page.

Nothing is imported here, so that reading settings stays light; MLflow itself is imported in `store` alone, and only
inside the delivery process.
"""
