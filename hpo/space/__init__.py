"""Search spaces as sweeps use them: loaded, checked, pinned, turned into configurations."""
