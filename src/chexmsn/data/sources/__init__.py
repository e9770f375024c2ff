"""One file per collection, found by its name: what it is, how to read it, how to write a look-alike."""
