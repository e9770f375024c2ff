"""What every part may lean on: shape names, keyed draws, errors, files and look-up by file name."""
