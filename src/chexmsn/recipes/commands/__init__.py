"""One file per command, found by name: help and example on top, its arguments, and what it does.

Each file offers `parser(values) -> ArgumentParser`, where `values` are the choices that decide which further
options there are (the method, the source), and `run(arguments)`.
"""
