"""Differential privacy: secret randomness, noise on the integers, and what it costs in ε and δ."""
