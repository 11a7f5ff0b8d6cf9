"""The old name of `xlora-bench table`."""

from xlora_bench.system.moved import say_moved

if __name__ == "__main__":
    say_moved("xlora-bench table")
