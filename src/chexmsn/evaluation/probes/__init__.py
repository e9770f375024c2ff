"""Ways to read features without training the encoder, each a file found by its name.

A file has a `Config` (every option a plain value; those that are chosen among are tuples) and a `Probe(config, bank)`
(`_base.AbstractProbe`), which knows labelled features and scores others.
"""
