"""How long a large store takes to answer, beside the stores of other tools with the same trials."""
