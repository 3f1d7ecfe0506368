"""Runs main.py and kills its own process (SIGKILL) at a chosen moment: `killer.py MOMENT [main.py's arguments]`.

The moments are places in the program, not times, so that the tests hit them every time. Of several processes the one
of number KILLED dies, of the environment.
"""

import os
import pathlib
import signal
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent.parent))

import main
from lt_noisy.training import checkpoint, loop


def _die():
    os.kill(os.getpid(), signal.SIGKILL)


_checkpoints = []  # of the stages so far
_init = checkpoint.Checkpoints.__init__


def _remembered(self, *args):
    _checkpoints.append(self)
    _init(self, *args)


checkpoint.Checkpoints.__init__ = _remembered


def _on_call(module, name, number, before=True):
    """Dies at the `number`th call of `module.name`, before or after its work."""
    original, calls = getattr(module, name), 0

    def replacement(*args, **kwargs):
        nonlocal calls
        calls += 1
        if calls == number and before:
            saving = [checkpoints for checkpoints in _checkpoints if checkpoints.directory.name == "checkpoints"]
            if saving:
                saving[-1].wait()  # the save under way commits
            _die()
        result = original(*args, **kwargs)
        if calls == number:
            _die()
        return result

    setattr(module, name, replacement)


def _on_replace(suffix, number=1, before=True):
    """Dies when a file whose path ends with `suffix` is put in place by rename."""
    original, calls = os.replace, 0

    def replacement(source, target):
        nonlocal calls
        calls += str(target).endswith(suffix)
        hit = str(target).endswith(suffix) and calls == number
        if hit and before:
            _die()
        original(source, target)
        if hit:
            _die()

    os.replace = replacement


MOMENTS = {
    "inside the manifest write": lambda: _on_replace("manifest.json"),
    "mid-epoch": lambda: _on_call(loop, "grouped", 14),
    "during a save": lambda: _on_call(checkpoint.Checkpoints, "save", 2, before=False),
    "between the last step and the summary": lambda: _on_replace("pretrain/summary.json"),
    "between stages": lambda: _on_replace("pretrain/summary.json", before=False),
    "between moves to an earlier round": lambda: _on_replace("earlier/2/joint", before=False),
    "between the saves of two seeds": lambda: _on_call(checkpoint.Checkpoints, "save", 4),
}

if __name__ == "__main__":
    if os.environ.get("JAX_PROCESS_ID", "") != os.environ.get("KILLED", ""):
        pass
    elif sys.argv[1].startswith("before step "):  # counted over all stages, in this process
        _on_call(loop, "grouped", int(sys.argv[1].removeprefix("before step ")))
    else:
        MOMENTS[sys.argv[1]]()
    sys.exit(main.main(["main.py", *sys.argv[2:]]))
