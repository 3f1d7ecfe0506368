"""Preparing a TensorFlow Datasets set that is not there yet: in a second process, and only where it can succeed."""

import importlib.util
import os
import pathlib
import re
import subprocess
import sys
import threading
import urllib.parse
from typing import Any

from lt_noisy.errors import UserError

_PATIENCE = 15  # seconds for a host to answer


def prepare(name: str, builder: Any) -> None:
    """Downloads and prepares a set in a second process, so that this one never imports TensorFlow.

    Raises:
      UserError: TensorFlow is missing (with it TFDS encodes every image set, CIFAR's binary files too), there is no
        network, or preparing failed.
    """
    code = (
        f"import tensorflow_datasets as tfds; tfds.builder({name!r}, file_format='array_record').download_and_prepare()"
    )
    where = f"tfds {name!r} is not prepared in {_data_dir(builder)}"
    if how := _by_hand(builder):
        raise UserError(f"{where}, and part of it is downloaded by hand; then the same command prepares it. {how}")
    if not _has_tensorflow():
        raise UserError(
            f"{where}, and TFDS takes TensorFlow to do it: pip install '.[prepare]', or copy there what another "
            f'machine has prepared by: python -c "{code}"'
        )
    if missing := _unreachable(builder):
        raise UserError(
            f"{where}, and {missing} cannot be reached; where there is a network and TensorFlow "
            f"(pip install '.[prepare]'), run: python -c \"{code}\""
        )
    lives, end = os.pipe()  # closes with this process, however that ends, and the other ends with it
    command = [sys.executable, "-c", f"{_ENDS_WITH_ITS_PARENT}; {code}"]
    try:
        done = subprocess.run(command, stdin=lives, stderr=subprocess.PIPE, text=True, check=False)
    finally:
        os.close(lives)
        os.close(end)
    if done.returncode:
        lines = [line for line in done.stderr.splitlines() if re.match(r"[\w.]*(Error|Exception)\b", line)]
        reason = f" ({lines[-1][:200].strip()})" if lines else ""
        raise UserError(
            f"{where}, and preparing it failed{reason}; where there is a network and TensorFlow "
            f"(pip install '.[prepare]'), run: python -c \"{code}\""
        )


_ENDS_WITH_ITS_PARENT = (
    "import os, sys, threading; threading.Thread(target=lambda: (sys.stdin.read(), os._exit(1)), daemon=True).start()"
)


def _data_dir(builder: Any) -> pathlib.Path:
    """The directory of all sets: that of this one is `name/version` or `name/config/version` in it."""
    return pathlib.Path(builder.data_path).parents[2 if builder.builder_config else 1]


def _by_hand(builder: Any) -> str:
    """Where what TFDS cannot download goes, and what that is, in TFDS's words; the empty string where it is there."""
    place = _data_dir(builder) / "downloads" / "manual"
    if not builder.MANUAL_DOWNLOAD_INSTRUCTIONS or (place.is_dir() and any(place.iterdir())):
        return ""
    return f"Put it into {place}: {' '.join(builder.MANUAL_DOWNLOAD_INSTRUCTIONS.split())}"


def _has_tensorflow() -> bool:
    return importlib.util.find_spec("tensorflow") is not None


def _unreachable(builder: Any) -> str:
    """The host of the first file that the set has yet to download, if it does not answer; else the empty string.

    TFDS itself would try for minutes.
    """
    import requests  # TFDS's own

    stored = [info.read_text() for info in (_data_dir(builder) / "downloads").glob("*.INFO")]
    urls = [url for url in builder.url_infos or {} if url.startswith("http") and not any(url in s for s in stored)]
    if not urls:
        return ""
    answered = threading.Event()

    def ask() -> None:
        try:
            requests.get(urls[0], stream=True, timeout=_PATIENCE).close()
        except (requests.ConnectionError, requests.Timeout):
            return
        except requests.RequestException:
            pass  # an answer, for TFDS to make sense of
        answered.set()

    thread = threading.Thread(target=ask, daemon=True)  # names are looked up without a time limit
    thread.start()
    thread.join(_PATIENCE)
    return "" if answered.is_set() else urllib.parse.urlsplit(urls[0]).netloc
