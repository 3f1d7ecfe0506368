"""The command that hands a network on: `lt-noisy export RUN[/STAGE] FILE [--license=ID] [--naming=NAME]`.

The ending of FILE says what it becomes: weights for PyTorch (`.safetensors`), a graph that many programs run (`.onnx`),
or one for JAX (`.stablehlo`). Beside it comes a model card. A graph is run before it is written, and compared with the
run's own network.
"""

from collections.abc import Callable, Sequence
from pathlib import Path

from safetensors.numpy import save

from lt_noisy.config.arguments import Parser, new_file
from lt_noisy.errors import UserError, say
from lt_noisy.files import exit_status, replacing, write_json
from lt_noisy.finished.export.card import model_card
from lt_noisy.finished.export.facts import gather, prepared
from lt_noisy.finished.export.graph import TOLERANCE, compared, load_graph
from lt_noisy.finished.export.onnx_file import metadata, onnx_bytes, onnx_call, require_libraries
from lt_noisy.finished.export.stablehlo_file import require_library, stablehlo_bytes, stablehlo_call
from lt_noisy.finished.export.weights_file import exported
from lt_noisy.finished.network import default_stage
from lt_noisy.finished.run import FinishedRun, named


def export(argv: Sequence[str]) -> int:
    """Writes what the arguments (those after `export`) name; returns the exit status."""
    return exit_status(lambda: _export(argv))


def _export(argv: Sequence[str]) -> int:
    parser = Parser("export", description="A finished run's network for other programs, with a model card.")
    parser.add_argument("run", help="the directory of a run, or of one of its stages: runs/photos/finetune")
    parser.add_argument("file", type=new_file, help=f"what it becomes, by its ending: {', '.join(_FORMATS)}")
    parser.add_argument("--license", default="", help="an identifier for the card, such as apache-2.0")
    parser.add_argument("--naming", default="", help="of the layers in .safetensors, such as timm")
    given = parser.parse_args(argv)
    file: Path = given.file
    if file.suffix not in _FORMATS:
        raise UserError(f"export: {file} ends in none of {', '.join(_FORMATS)}, which say what it becomes")
    if given.naming and file.suffix != ".safetensors":
        raise UserError("export: --naming is of the layers in .safetensors; the outputs of a graph have names already")
    beside = file.with_name(f"{file.name}.md")  # of each form of a network its own
    written = [file, beside, *([file.with_suffix(".json")] if file.suffix == ".safetensors" else [])]
    if there := [str(path) for path in written if path.exists()]:
        raise UserError(f"export: {' and '.join(there)} exists already; give another name")
    run, stage = named(given.run)
    stage = stage or default_stage(run)
    card = model_card(gather(run, stage), file.name, given.license)
    said = _FORMATS[file.suffix](run, stage, file, given.naming)
    with replacing(beside, "w") as target:
        target.write(card)
    say(said, f"{beside}: the model card; read it, and say who may use the model and for what")
    return 0


def _write_weights(run: FinishedRun, stage: str, file: Path, naming: str) -> str:
    tensors, config, left_out = exported(run.directory / stage, naming)
    _write(file, save(tensors))
    write_json(file.with_suffix(".json"), config)
    total = sum(tensor.size for tensor in tensors.values())
    what = " of the encoder alone: its head has no form there" if left_out else ""
    beside = f"{file.with_suffix('.json')}: how images are prepared"
    return f"{file}: {len(tensors)} tensors{what}, {total:,} numbers; {beside}"


def _write_onnx(run: FinishedRun, stage: str, file: Path, naming: str) -> str:
    require_libraries()
    graph = load_graph(run, stage)
    content = onnx_bytes(graph, metadata(graph, prepared(run, stage)))
    error = compared(graph, onnx_call(content))
    _write(file, content)
    return _said(file, content, error, "onnxruntime")


def _write_stablehlo(run: FinishedRun, stage: str, file: Path, naming: str) -> str:
    require_library()
    graph = load_graph(run, stage)
    content = stablehlo_bytes(graph)
    error = compared(graph, stablehlo_call(content))
    _write(file, content)
    return _said(file, content, error, "jax.export")


# By the ending of the file: writes it, and returns a line that says so.
_FORMATS: dict[str, Callable[[FinishedRun, str, Path, str], str]] = {
    ".safetensors": _write_weights,
    ".onnx": _write_onnx,
    ".stablehlo": _write_stablehlo,
}


def _write(file: Path, content: bytes) -> None:
    with replacing(file) as target:
        target.write(content)


def _said(file: Path, content: bytes, error: float, by: str) -> str:
    return (
        f"{file}: {len(content) / 2**20:.1f} MiB; run by {by}, its outputs are those of the run to {error:.1e} of the "
        f"largest (allowed: {TOLERANCE:g})"
    )
