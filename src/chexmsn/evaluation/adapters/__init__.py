"""Classifiers from anywhere: one file per software that they come from, found by its name.

Each file offers

    TITLE                                what the software is called
    Config                               a dataclass of options, `Options` of `_model` and what else it needs
    open(location, config) -> Model      the classifier in a file, folder or function; UserError
"""
