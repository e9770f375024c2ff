"""What a classifier is worth: stress test, results with intervals by patient, predictions for a folder of images."""
