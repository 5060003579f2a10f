"""`pose doctor`: whether the nodes of a run can work, and work together."""
