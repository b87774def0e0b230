"""A linear map of every token.

Letters: a any axes; w input width; v output width.
"""

from jaxtyping import Array, Float


def project(x: Float[Array, "*a w"], weight: Float[Array, "w v"]) -> Float[Array, "*a v"]:
    """`x @ weight`, with all tokens on one axis.

    The gradient of the weight is then one matrix product over that axis; over two axes, compilers
    for CPUs turn the tokens around first, which costs as much again as the product.
    """
    return (x.reshape(-1, x.shape[-1]) @ weight).reshape(*x.shape[:-1], weight.shape[-1])
