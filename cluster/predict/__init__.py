"""A trained model at work on pictures: boxes, pictures, poses, outputs. `poses.Predictor` is its Python API."""
