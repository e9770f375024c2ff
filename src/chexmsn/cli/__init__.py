"""Arguments in, one recipe out."""
