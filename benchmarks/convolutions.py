"""Each convolution of the networks here on this machine's CPU: forward, and its gradients by XLA and by lt_noisy.

    python benchmarks/convolutions.py [--batch=128] [--rounds=5] [--dtype=float32] [--json=results/convolutions.json]

Milliseconds are medians of rounds in which the forms take turns, and GFLOP/s beside them, of the multiplications and
additions that the direct sum has; `ceiling` is a product of two 1024 x 1024 matrices, which Winograd's form may exceed.
`taskset -c 0` measures one core.
"""

import statistics
import time
from collections.abc import Callable
from typing import Any

import arguments
import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from records import measured

from lt_noisy import system
from lt_noisy.errors import say
from lt_noisy.files import write_json
from lt_noisy.models.convolution import LAYOUT, Padding, forward, input_gradient, kernel_gradient
from lt_noisy.runs.markdown import markdown

# pixels a side, channels, outputs, kernel, stride: ResNet-20 to -56 at width 16, then ResNet-18 at width 64.
SHAPES = (
    (32, 3, 16, 3, 1),
    (32, 16, 16, 3, 1),
    (32, 16, 32, 3, 2),
    (16, 32, 32, 3, 1),
    (16, 32, 64, 3, 2),
    (8, 64, 64, 3, 1),
    (32, 3, 64, 3, 1),
    (32, 64, 64, 3, 1),
    (32, 64, 128, 3, 2),
    (32, 64, 128, 1, 2),
    (16, 128, 128, 3, 1),
    (16, 128, 256, 3, 2),
    (8, 256, 256, 3, 1),
    (8, 256, 512, 3, 2),
    (4, 512, 512, 3, 1),
    (64, 3, 64, 7, 2),
)


def forms(
    side: int, channels: int, outputs: int, size: int, stride: int, batch: int, dtype: Any
) -> dict[str, Callable]:
    """Name -> a call of the compiled form, on arrays that are there."""
    rng, strides = np.random.default_rng(0), (stride, stride)
    padding: Padding = ((size // 2, size // 2), (size // 2, size // 2))

    def array(*shape: int) -> jax.Array:
        return jnp.asarray(rng.normal(size=shape), dtype)

    x, kernel = array(batch, side, side, channels), array(size, size, channels, outputs)
    dy = array(batch, side // stride, side // stride, outputs)

    def plain(x: jax.Array, kernel: jax.Array) -> jax.Array:
        return lax.conv_general_dilated(x, kernel, strides, padding, dimension_numbers=LAYOUT)

    def xla(argument: int) -> Callable:
        return lambda x, kernel, dy: jax.vjp(plain, x, kernel)[1](dy)[argument]

    compiled = {
        "forward, XLA": jax.jit(lambda x, kernel, dy: plain(x, kernel)),
        "forward": jax.jit(lambda x, kernel, dy: forward(x, kernel, strides, padding)),
        "input, XLA": jax.jit(xla(0)),
        "input": jax.jit(lambda x, kernel, dy: input_gradient(dy, kernel, strides, padding, x.shape)),
        "kernel, XLA": jax.jit(xla(1)),
        "kernel": jax.jit(lambda x, kernel, dy: kernel_gradient(x, dy, kernel.shape, strides, padding)),
    }
    return {name: lambda form=form: form(x, kernel, dy) for name, form in compiled.items()}


def milliseconds(calls: dict[str, Callable], rounds: int) -> dict[str, float]:
    """The median of each call over `rounds` in which they take turns."""
    taken: dict[str, list[float]] = {name: [] for name in calls}
    for call in calls.values():
        jax.block_until_ready(call())
    for _ in range(rounds):
        for name, call in calls.items():
            began = time.perf_counter()
            jax.block_until_ready(call())
            taken[name].append(1000 * (time.perf_counter() - began))
    return {name: round(statistics.median(times), 2) for name, times in taken.items()}


def show(rows: list[dict[str, Any]]) -> str:
    """A Markdown table of milliseconds and GFLOP/s."""
    names = list(rows[0]["milliseconds"])
    body = [
        [row["shape"], *(f"{row['milliseconds'][n]:.1f} ms, {row['gflop_per_second'][n]:.0f} GFLOP/s" for n in names)]
        for row in rows
    ]
    return markdown([["shape", *names], *body])


def main(argv: list[str]) -> None:
    """Prints the table and writes the JSON."""
    parser = arguments.Parser(description=__doc__)
    parser.add_argument("--batch", type=arguments.count, default=128)
    parser.add_argument("--rounds", type=arguments.count, default=5)
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), default="float32")
    parser.add_argument("--json", type=arguments.new_file)
    given = parser.parse_args(argv[1:])
    square = jnp.ones((1024, 1024), given.dtype)
    product = jax.jit(lambda a: a @ a)
    rows = []
    for side, channels, outputs, size, stride in SHAPES:
        calls = forms(side, channels, outputs, size, stride, given.batch, given.dtype)
        taken = milliseconds({**calls, "ceiling": lambda: product(square)}, given.rounds)
        flop = 2 * given.batch * (side // stride) ** 2 * size**2 * channels * outputs
        speeds = {name: round((2 * 1024**3 if name == "ceiling" else flop) / ms / 1e6, 1) for name, ms in taken.items()}
        shape = f"{side} x {side}, {channels} to {outputs}, {size} x {size}, stride {stride}"
        rows.append({"shape": shape, "milliseconds": taken, "gflop_per_second": speeds})
        say(f"{shape}: " + ", ".join(f"{name} {ms} ms" for name, ms in taken.items() if name != "ceiling"))
    say(*show(rows).splitlines())
    if given.json is not None:
        write_json(given.json, measured(argv, rows=rows, memory_kept=system.keeps_memory()))


if __name__ == "__main__":
    system.keep_memory()
    arguments.run(main)
