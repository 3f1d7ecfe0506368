"""Reports of the data doctor, for tests."""

from lt_noisy.data import doctor


def report_of(text, root):
    return doctor.examine(text.format(tmp=root), "check")


def found(report):
    """{kind: (whether it is an error, entries)}; errors come first."""
    kinds = {}
    for finding in report.findings:
        kinds.setdefault(finding.kind, (finding.is_error, []))[1].extend(finding.entries)
    severities = [finding.is_error for finding in report.findings]
    assert severities == sorted(severities, reverse=True)
    return kinds


def files_of(report, kind):
    """Of a kind that is an error the files, sorted within each entry."""
    is_error, entries = found(report)[kind]
    assert is_error
    return sorted(sorted(entry["files"]) for entry in entries)
