"""The overview of a network's parameters, of arrays and of shapes alone."""

import jax
import numpy as np

from lt_noisy.training import parameters

SHAPES = {
    "encoder": {"stem": {"kernel": (3, 3, 3, 16)}, "norm": {"bias": (16,), "scale": (16,)}},
    "head": {"kernel": (16, 10), "bias": (10,)},
}
OF_SHAPES = jax.tree.map(
    lambda s: jax.ShapeDtypeStruct(s, np.float32), SHAPES, is_leaf=lambda node: isinstance(node, tuple)
)


def test_parts_and_total():
    assert parameters.parts(OF_SHAPES) == {"encoder": 432 + 32, "head": 170}
    assert parameters.line(OF_SHAPES) == "634 parameters (encoder 464, head 170)"
    blocks = {"stem_conv": {"kernel": np.zeros((2, 2))}, "stem_norm": {"bias": np.zeros(3)}, "scale": np.zeros(5)}
    assert parameters.line(blocks) == "12 parameters (stem 7, scale 5)"
    assert parameters.line({}) == "0 parameters ()"


def test_the_table_has_every_array_and_is_written_beside_the_stage(tmp_path, capsys):
    parameters.tell("finetune", tmp_path, jax.tree.map(lambda s: np.zeros(s.shape, s.dtype), OF_SHAPES))
    assert capsys.readouterr().out == "finetune: 634 parameters (encoder 464, head 170)\n"
    written = (tmp_path / "parameters.txt").read_text()
    assert written == f"{parameters.table(OF_SHAPES)}\n"
    assert "encoder/stem/kernel" in written and "(3, 3, 3, 16)" in written and "Total: 634 -- 2,536 bytes" in written
