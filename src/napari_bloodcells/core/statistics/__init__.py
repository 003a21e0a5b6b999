"""Figures with intervals: proportions, reference ranges, correction for the classifier, agreement of readers."""
