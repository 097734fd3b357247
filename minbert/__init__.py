"""One shared BERT fine-tuned on several tasks at once: training, evaluation and prediction of one configuration.

The package works alone (`python -m minbert train`) and does not depend on `hpo`. Importing it imports nothing else.
"""
