"""One self-contained HTML page about sweeps, made from the store, also while they run."""
