"""The BERT encoder on packed tokens, and where its weights come from."""
