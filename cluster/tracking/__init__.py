"""What a run leaves behind: the journal (`metrics.jsonl`), its delivery to MLflow, and MLflow's web page.

Nothing is imported here, so that reading settings stays light; MLflow itself is imported
by the delivery process, the registry and the server alone.
"""
