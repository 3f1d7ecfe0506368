"""Loss correction by a noise transition matrix."""

import math

import jax
import jax.numpy as jnp
import numpy as np

from lt_noisy import files
from lt_noisy.data import noise
from lt_noisy.errors import UserError
from lt_noisy.hashing import array_sha256
from lt_noisy.losses.common import at_target, log_softmax
from lt_noisy.losses.factory import from_formula
from lt_noisy.method import Context, Method, State

_LARGEST = 2**26  # numbers of a tensor [B, C, C]


def forward(logits: jax.Array, targets: jax.Array, log_transition: jax.Array) -> jax.Array:
    """Forward correction: l = -log( sum_c p_c T[c, y] ), T[c, y] = P(observed = y | true = c).

    p is the network's belief about the *true* class: predict with plain f. T = I is cross-entropy.

    Args:
      logits: [B, C], of any float dtype.
      targets: int [B], or soft [B, C] (the expected loss of an observed label; builds a [B, C, C] tensor, a part
        of it at a time where there are many classes).
      log_transition: log T, [C, C], -inf where T is 0. A label that T never produces costs 27.6, without a gradient.

    Returns:
      float32 [B].

    References:
      Patrini et al., "Making Deep Neural Networks Robust to Label Noise: a Loss Correction Approach" (2017).
    """
    log_p = log_softmax(logits)
    columns = jnp.asarray(log_transition, log_p.dtype).T
    if targets.ndim == 1:
        return -_log_probability(log_p, columns[targets])
    if log_p.size * len(columns) <= _LARGEST:
        return at_target(-_log_probability(log_p[:, None], columns[None]), targets)
    one = jax.checkpoint(lambda column: _log_probability(log_p, column[None]))  # else the gradient keeps all parts
    together = max(_LARGEST // log_p.size, 1)
    return at_target(-jax.lax.map(one, columns, batch_size=together).T, targets)


def _log_probability(log_p: jax.Array, columns: jax.Array) -> jax.Array:
    """log sum_c p_c T[c, y] of log p, log T[:, y] [..., C]: [...].

    Where T[:, y] is all 0 it is log 1e-12, with gradient 0: no example is labelled y, but a smoothed target may weigh
    it.
    """
    possible = jnp.isfinite(columns).any(axis=-1)
    # logsumexp has a NaN gradient where all its terms are -inf.
    terms = log_p + jnp.where(possible[..., None], columns, 0.0)
    return jnp.where(possible, jax.nn.logsumexp(terms, axis=-1), math.log(1e-12))


def make_forward(matrix: tuple = (), path: str = "") -> Method:
    """`forward`; keeps log T, a constant: how it was estimated is the business of the `transition` stage.

    Without `matrix` and `path` T is the estimate of the `transition` stage that the stage's field `transition` names.
    If the data has an example of a label that T never produces, or T is missing or does not fit, `init` raises
    UserError.

    Args:
      matrix: ((...), ...), T's rows, each summing to 1.
      path: in place of `matrix`: an `.npy` file of floats [C, C], read when the config is.
    """
    if matrix and path:
        raise UserError("give one of matrix=((...), ...) or path='file.npy', or neither")
    given, content = None, ""
    if matrix:
        given = noise.stochastic(matrix, "matrix")
    elif path:
        given = noise.stochastic(files.read_array(path, ""), path)
        content = array_sha256(given)

    def constants(context: Context) -> State:
        t = _from_stage(context) if given is None else given
        if len(t) != context.num_classes:
            raise UserError(f"forward: the matrix is for {len(t)} classes, the data has {context.num_classes}")
        never = np.flatnonzero((t.sum(axis=0) == 0) & (context.counts > 0))
        if len(never):
            raise UserError(
                f"forward: the matrix never produces class {never[0]} (its column is 0), "
                f"and {context.counts[never[0]]} examples are labelled so"
            )
        with np.errstate(divide="ignore"):
            return {"log_transition": np.log(t).astype(np.float32)}

    return from_formula(forward, constants)._replace(transition=given is None, content=content)


def _from_stage(context: Context) -> np.ndarray:
    if context.transition is None:
        raise UserError(
            "forward: no transition matrix: give matrix=((...), ...) or path='file.npy', "
            "or name a `transition` stage in the stage's field `transition`"
        )
    return noise.stochastic(context.transition, "forward: the transition stage's matrix")
