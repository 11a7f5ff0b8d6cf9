"""Files, in-process caches, threads, memory allocator and log levels."""
