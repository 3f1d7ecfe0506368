"""What a run prints: names of files and classes on one line, whatever the stream can encode."""

import io
import os

import pytest

from lt_noisy.errors import UserError, printable, say

LATIN = os.fsdecode(b"caf\xe9")


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("a plain name", "a plain name"),
        ("Größe ± 日本", "Größe ± 日本"),
        (LATIN, r"caf\udce9"),
        ("one\ntwo\r\x1b[2J\t\u2028", r"one\ntwo\r\x1b[2J\t\u2028"),
        (LATIN + "\\n", r"caf\udce9\n"),
    ],
)
def test_a_name_is_on_one_line(text, shown):
    assert printable(text) == shown == printable(shown)
    assert str(UserError(f"x: {UserError(text)}")) == f"x: {shown}"


def test_a_stream_that_nobody_reads_ends_nothing():
    """As when `tee` ends on Ctrl-C before the program has saved."""
    read, write = os.pipe()
    os.close(read)
    with open(write, "w") as stream:
        say("step 10", stream=stream)
        say("step 20", stream=stream)
        stream.write("which is flushed at the end")


@pytest.mark.parametrize(("encoding", "shown"), [("utf-8", "é ±"), ("ascii", r"\xe9 \xb1"), ("latin-1", "é ±")])
def test_what_a_strict_stream_cannot_encode_is_escaped(encoding, shown):
    written = io.BytesIO()
    stream = io.TextIOWrapper(written, encoding, errors="strict", newline="\n")
    say("é ±", LATIN, "one\ntwo", stream=stream)
    assert written.getvalue().decode(encoding) == f"{shown}\ncaf\\udce9\none\\ntwo\n"
