"""The runs of a sweep: grid, rules, tuning trials."""
