"""What Fedpact keeps on disk: a run's checkpoints, and model files; each complete, or not there at all."""
