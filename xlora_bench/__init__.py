"""xlora_bench: the honest comparison of LoRA variants."""
