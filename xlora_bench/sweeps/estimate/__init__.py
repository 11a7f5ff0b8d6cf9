"""Cost estimates before a sweep starts: steps, tokens, seconds; `--dry-run`."""
