"""Whether a group's equal residual blocks are better compiled one by one or as one block in a `scan`, on this CPU.

    python benchmarks/scanned_blocks.py [--batch=128] [--rounds=5] [--json=results/scanned_blocks.json]

Four blocks of each group of a CIFAR ResNet of width 16, forward and backward, float32, BatchNorm by the batch. A `scan`
compiles one of them, and saves for the backward pass by copies into arrays of all four; `worth it up to` is the steps
after which what compilation saves is spent. `taskset -c 0` measures one core.
"""

import time
from typing import Any

import arguments
import jax
import jax.numpy as jnp
import numpy as np
from convolutions import milliseconds
from jax import lax
from records import measured

from lt_noisy import system
from lt_noisy.errors import say
from lt_noisy.files import write_json
from lt_noisy.models.convolution import convolution
from lt_noisy.runs.markdown import markdown

BLOCKS = 4
GROUPS = ((32, 16), (16, 32), (8, 64))  # pixels a side, channels


def _norm(x: jax.Array, scale: jax.Array) -> jax.Array:
    mean, square = (each.mean((0, 1, 2), keepdims=True) for each in (x, x * x))
    return (x - mean) * lax.rsqrt(square - mean * mean + 1e-5) * scale.reshape(1, 1, 1, -1)


def _block(x: jax.Array, weights: dict[str, jax.Array]) -> tuple[jax.Array, None]:
    y = x
    for at in (1, 2):
        y = jax.nn.relu(y) if at == 2 else y
        y = _norm(convolution(y, weights[f"kernel{at}"], (1, 1), ((1, 1), (1, 1))), weights[f"scale{at}"])
    return jax.nn.relu(y + x), None


def _one_by_one(x: jax.Array, weights: dict[str, jax.Array]) -> jax.Array:
    for i in range(BLOCKS):
        x, _ = _block(x, {name: array[i] for name, array in weights.items()})
    return x


def _scanned(x: jax.Array, weights: dict[str, jax.Array]) -> jax.Array:
    return lax.scan(_block, x, weights)[0]


def compare(side: int, channels: int, batch: int, rounds: int) -> dict[str, Any]:
    """Seconds to compile and milliseconds a step of both forms, for a group."""
    rng = np.random.default_rng(0)

    def array(*shape: int) -> jax.Array:
        return jnp.asarray(rng.normal(size=shape) * 0.1, jnp.float32)

    x = array(batch, side, side, channels)
    weights = {f"kernel{at}": array(BLOCKS, 3, 3, channels, channels) for at in (1, 2)}
    weights |= {f"scale{at}": 1 + array(BLOCKS, channels) for at in (1, 2)}
    compiled, seconds = {}, {}
    for name, form in {"one by one": _one_by_one, "scanned": _scanned}.items():
        step = jax.jit(jax.grad(lambda x, weights, form=form: (form(x, weights) ** 2).mean(), (0, 1)))
        began = time.perf_counter()
        program = step.lower(x, weights).compile()
        seconds[name] = round(time.perf_counter() - began, 2)
        compiled[name] = lambda program=program: program(x, weights)
    taken = milliseconds(compiled, rounds)
    return {"group": f"{side} x {side}, {channels} channels", "seconds_to_compile": seconds, "milliseconds": taken}


def show(rows: list[dict[str, Any]]) -> str:
    """A Markdown table."""
    body = []
    for row in rows:
        compiled, steps = row["seconds_to_compile"], row["milliseconds"]
        saved, lost = compiled["one by one"] - compiled["scanned"], steps["scanned"] - steps["one by one"]
        body.append(
            [
                row["group"],
                *(f"{compiled[name]:.1f} s, {steps[name]:.0f} ms" for name in compiled),
                f"{1000 * saved / lost:.0f} steps" if lost > 0 else "any length",
            ]
        )
    return markdown([["group", "one by one", "scanned", "worth it up to"], *body])


def main(argv: list[str]) -> None:
    """Prints the table and writes the JSON."""
    parser = arguments.Parser(description=__doc__)
    parser.add_argument("--batch", type=arguments.count, default=128)
    parser.add_argument("--rounds", type=arguments.count, default=5)
    parser.add_argument("--json", type=arguments.new_file)
    given = parser.parse_args(argv[1:])
    jax.config.update("jax_enable_compilation_cache", False)
    system.keep_memory()
    rows = [compare(side, channels, given.batch, given.rounds) for side, channels in GROUPS]
    say(*show(rows).splitlines())
    if given.json is not None:
        write_json(given.json, measured(argv, rows=rows))


if __name__ == "__main__":
    arguments.run(main)
