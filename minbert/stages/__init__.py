"""Stages of training before the tasks: MLM, NLI, MNRL."""
