"""Other software that models come from and go to: one file per layout of weights, found by its name.

Each file offers

    TITLE                                what the software is called
    theirs(name, classifier)             their name of a weight; three where queries, keys and values are apart
    read(path) -> Found                  what a file or folder of theirs holds

and, where models can be written for it,

    describe(model: Portable) -> dict    the JSON files it wants beside the weights, by file name
    usage(model: Portable) -> Usage      the lines that load the model there and the lines that call it

The common tongue is timm's names without a prefix; the linear layer of a classifier is `head` in a transformer and
`fc` in a ResNet, there as here.
"""
