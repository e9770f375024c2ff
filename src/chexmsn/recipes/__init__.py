"""Whole experiments: the commands, and recipes that string them together."""
