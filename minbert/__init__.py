"""One shared BERT fine-tuned on several tasks at once: train, evaluate and predict a single configuration.

The package is usable alone (`python -m minbert train`) and knows no search driver. Importing it imports nothing heavy.
"""
