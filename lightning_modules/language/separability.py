"""Do latents of different instructions differ more than latents of the same one?

Letters: n episodes, c cells, d width, i instructions.
"""

import numpy as np
from jaxtyping import Float, Float64, Int64


def variance_sums(
    features: Float[np.ndarray, "n c d"], group: Int64[np.ndarray, " n"]
) -> tuple[Float64[np.ndarray, "5 c"], Float64[np.ndarray, "n 5 c"]]:
    """Sums of squares between and within groups and their degrees of freedom.

    Returns:
        (between, its freedom, within, its freedom, episodes a group times the first freedom) of all
        episodes, and without each.
    """
    n = len(features)
    centred = (features - features.mean(0)).astype(np.float64).transpose(1, 0, 2)
    inner = centred @ centred.transpose(0, 2, 1)
    own = np.einsum("cnn->cn", inner)
    member = (group == np.unique(group)[:, None]).astype(np.float64)
    size = member.sum(1)
    with_group = inner @ member.T
    squares = np.einsum("cni,in->ci", with_group, member)
    total = (squares / size).sum(-1)
    everything = inner.sum((-2, -1))
    value = _sums(total, everything, own.sum(-1), n, len(size), np.square(size).sum())
    mine = group_place = np.argmax(member, axis=0)
    rest = np.maximum(size[mine] - 1, 0)
    changed = (
        squares[:, mine]
        - 2 * np.take_along_axis(with_group, group_place[None, :, None], axis=2)[..., 0]
    )
    changed = np.where(rest > 0, (changed + own) / np.maximum(rest, 1), 0)
    without_total = total[:, None] - squares[:, mine] / size[mine] + changed
    without_all = everything[:, None] - 2 * inner.sum(-1) + own
    groups_left = len(size) - (rest == 0)
    without = _sums(
        without_total,
        without_all,
        own.sum(-1, keepdims=True) - own,
        n - 1,
        groups_left,
        np.square(size).sum() - 2 * size[mine] + 1,
    )
    return value, without.transpose(2, 0, 1)


def _sums(
    grouped: Float64[np.ndarray, "..."],
    everything: Float64[np.ndarray, "..."],
    own: Float64[np.ndarray, "..."],
    n: int,
    groups: int | Int64[np.ndarray, " n"],
    squared_sizes: float | Float64[np.ndarray, " n"],
) -> Float64[np.ndarray, "5 ..."]:
    between, within = grouped - everything / n, own - grouped
    freedom = np.broadcast_to(np.asarray(groups, np.float64), between.shape)
    share = np.broadcast_to(n - np.asarray(squared_sizes) / n, between.shape)
    return np.stack([between, freedom - 1, within, n - freedom, share])


def variance_ratio(sums: Float64[np.ndarray, "5 *places"]) -> Float64[np.ndarray, "*places"]:
    """Variance between instructions over variance within one; 0 where they make no difference.

    The variance between is what is left of the instructions' means after their own scatter, as in a
    random-effects analysis of variance: it depends neither on the number of dimensions nor on that
    of episodes, and scatters around 0, also below, where there is none.
    """
    between, of_between, within, of_within, share = sums
    ok = (of_between > 0) & (of_within > 0) & (within > 0) & (share > 0)
    one = np.where(ok, of_between, 1)
    scatter = np.where(ok, within / np.where(ok, of_within, 1), 1)
    size = np.where(ok, share / one, 1)
    return np.where(ok, (between / one / scatter - 1) / size, np.nan)
