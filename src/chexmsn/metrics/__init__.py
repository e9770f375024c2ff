"""How well findings are ranked, how sure that is, and how much is lost on a degraded image."""
