"""Stages of training before the multitask training: MLM, NLI, MNRL."""
