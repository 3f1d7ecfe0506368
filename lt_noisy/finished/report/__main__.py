"""`python -m lt_noisy.finished.report RUN...`: the same as `lt-noisy report RUN...`."""

import sys

from lt_noisy.finished.report.command import report

if __name__ == "__main__":
    sys.exit(report(sys.argv[1:]))
