"""From a folder of chest radiographs to a pack, and from packs to batches.

`sources` read a collection as it was published, `prepare` packs it, `collection` joins the rows of
packs and `loader` serves them. Everything here is NumPy and pandas; tensors begin at the loader.
"""
