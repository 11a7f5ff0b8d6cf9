"""The cost of runs before they start: steps, tokens, seconds."""
