"""What is done with a finished run: predict, review its labels, report, hand it on; and the same as Python calls."""
