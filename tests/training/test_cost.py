"""What a compiled program costs, against counts by hand."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax
from jax.sharding import AxisType, Mesh, PartitionSpec

from lt_noisy.training.cost import Collective, collectives, cost


def _cost(fn, *shapes, **options):
    arguments = [jax.ShapeDtypeStruct(shape, jnp.float32) for shape in shapes]
    return cost(jax.jit(fn, **options).lower(*arguments).compile(), 1)


def test_operations_of_a_matrix_product():
    assert _cost(jnp.matmul, (32, 48), (48, 80)).flops == 2 * 32 * 48 * 80


@pytest.mark.parametrize("stride", [1, 2])
def test_operations_of_a_convolution(stride):
    def convolution(x, kernel):
        return lax.conv_general_dilated(
            x, kernel, (stride, stride), "VALID", dimension_numbers=("NHWC", "HWIO", "NHWC")
        )

    side = (10 - 3) // stride + 1
    assert _cost(convolution, (4, 10, 10, 6), (3, 3, 6, 8)).flops == 2 * 4 * side**2 * 3 * 3 * 6 * 8


def test_a_donated_argument_and_its_result_are_held_once():
    shapes = (256, 64), (256, 64)
    assert _cost(lambda x, y: x + y, *shapes).held == 3 * 4 * 256 * 64
    assert _cost(lambda x, y: x + y, *shapes, donate_argnums=0).held == 2 * 4 * 256 * 64


def test_what_lives_within_a_program():
    """The images between two convolutions, which are no argument and no result."""

    def twice(x, kernel):
        layout = ("NHWC", "HWIO", "NHWC")
        between = lax.conv_general_dilated(x, kernel, (1, 1), "SAME", dimension_numbers=layout)
        return lax.conv_general_dilated(between, kernel, (4, 4), "SAME", dimension_numbers=layout)

    found, between = _cost(twice, (8, 32, 32, 16), (3, 3, 16, 16)), 4 * 8 * 32 * 32 * 16
    assert between <= found.temporary <= 2 * between
    assert found.traffic >= found.held + 2 * between


def _on(count, fn, *shapes):
    """`fn` on each of so many devices, on equal shapes."""
    mesh = Mesh(np.array(jax.devices()[:count]), ("data",), axis_types=(AxisType.Auto,))
    mapped = jax.shard_map(fn, mesh=mesh, in_specs=PartitionSpec(), out_specs=PartitionSpec(), check_vma=False)
    arguments = [jax.ShapeDtypeStruct(shape, jnp.float32) for shape in shapes]
    return cost(jax.jit(mapped).lower(*arguments).compile(), count)


@pytest.mark.parametrize("count", [2, 8])
def test_bytes_between_devices(count):
    size = 4 * 64 * 16
    cases = {
        "all-reduce": (lambda x: lax.psum(x, "data"), size, 2 * (count - 1) / count * size),
        "all-gather": (lambda x: lax.all_gather(x, "data"), count * size, (count - 1) * size),
        "reduce-scatter": (lambda x: lax.psum_scatter(x, "data", tiled=True), size, (count - 1) / count * size),
        "collective-permute": (
            lambda x: lax.ppermute(x, "data", [(i, (i + 1) % count) for i in range(count)]),
            size,
            size,
        ),
    }
    for kind, (fn, whole, wire) in cases.items():
        found = _on(count, fn, (64, 16))
        assert found.collectives == (Collective(kind, whole, count),)
        assert found.bytes_by_kind == {kind: whole} and found.wire == pytest.approx(wire, rel=1e-12)


def test_one_device_sends_nothing():
    assert _on(1, lambda x: lax.psum(x, "data"), (64, 16)).wire == 0


def test_several_arrays_in_one_collective_are_added_up():
    found = _on(8, lambda x, y: lax.psum((x, y), "data"), (64, 16), (5,))
    assert found.bytes_by_kind == {"all-reduce": 4 * (64 * 16 + 5)}


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        (
            "  %a = f32[2,64]{1,0:T(2,128)S(1)} all-reduce(%x), channel_id=1, replica_groups=[2,4]<=[8], to_apply=%sum",
            Collective("all-reduce", 512, 4),
        ),
        (
            "  %g = (bf16[4,8]{1,0}, bf16[32,8]{1,0}) all-gather-start(%x), replica_groups={{0,1,2,3,4,5,6,7}}",
            Collective("all-gather", 512, 8),
        ),
        (
            "  ROOT %r = (f32[3]{0}, /*index=1*/u8[10]{0}) all-reduce-start(%x, %y), replica_groups={}, to_apply=%sum",
            Collective("all-reduce", 22, 8),
        ),
        ("  %s = f32[2,4]{1,0} reduce-scatter(%x), replica_groups={{0,1},{2,3}}", Collective("reduce-scatter", 64, 2)),
        ("  %d = f32[2,64]{1,0} all-reduce-done(%a)", None),
        ("  %t = f32[2,64]{1,0} get-tuple-element(%all-reduce.1), index=0", None),
        ("  %o = f32[2,64]{1,0} all-reduce(%x), replica_groups={{0},{1}}, to_apply=%sum", None),
    ],
)
def test_forms_of_collectives_in_the_text(line, expected):
    assert list(collectives(line, 8)) == ([] if expected is None else [expected])
