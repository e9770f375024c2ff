"""Encoders, heads, classifiers, and the folders they are kept in."""
