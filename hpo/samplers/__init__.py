"""Samplers: how the next configuration is drawn. Each is an Optuna sampler of one known space."""
