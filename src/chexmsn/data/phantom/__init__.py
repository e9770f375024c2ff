"""The synthetic twin of a collection of chest radiographs: who the patients are, what is drawn, how it is exposed."""
