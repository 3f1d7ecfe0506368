"""The label report: a page on which people look at suspicious labels and decide."""
