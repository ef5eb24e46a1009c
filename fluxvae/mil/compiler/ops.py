"""Names of operations in ``metadata.json``: ``Ios17.conv``, ``Ios16.relu``, ``Split``.

An operation is named after the newest opset, not above the function's, that revised it; one that
no opset revised has no prefix. Which opset revised which operation is known from samples of
Apple's output alone; the rest is guessed from operations of the same family. The histogram
informs people; nothing was seen to depend on it.
"""

from fluxvae.mil.text.document import TextFunction

# As seen in Apple's output for functions of ios16 and ios17.
_SEEN = {
    "ios16": {
        "Ios16": "add cast clip constexpr_affine_dequantize constexpr_lut_to_dense conv log lstm "
        "mul pow reduce_argmax reduce_max reduce_mean reduce_sum relu sigmoid silu softmax sqrt",
        "": "concat expand_dims pad select slice_by_index split squeeze stack tile transpose",
    },
    "ios17": {
        "Ios17": "add cast clip concat conv expand_dims instance_norm linear matmul mul reshape "
        "transpose",
        "Ios16": "constexpr_affine_dequantize constexpr_lut_to_dense reduce_sum relu sigmoid silu "
        "softmax",
        "": "pad select split stack tile",
    },
    "ios18": {"Ios18": "relu"},
}
# Not seen in functions of ios17; their families kept the form of ios16 there.
_KEPT = (
    "abs ceil constexpr_cast constexpr_sparse_to_dense cos erf exp exp2 floor gelu reduce_l1_norm "
    "reduce_l2_norm reduce_log_sum reduce_log_sum_exp reduce_max reduce_mean reduce_min "
    "reduce_prod reduce_sum_square relu6 round sign sin softplus softsign sqrt square tanh "
    "upsample_bilinear upsample_nearest_neighbor"
)


def operation_name(kind: str, opset: str) -> tuple[str, bool]:
    """The name of an operation in a function of ``opset`` (``ios17``), and whether it was seen."""
    words = kind.split("_")
    camel = words[0] + "".join(w[:1].upper() + w[1:] for w in words[1:])
    bare = camel[:1].upper() + camel[1:]
    if opset == "ios15":  # the first one: nothing is revised in it
        return bare, True
    for prefix, kinds in _SEEN.get(opset, {}).items():
        if kind in kinds.split():
            return (f"{prefix}.{camel}" if prefix else bare), True
    kept = opset == "ios17" and kind in _KEPT.split()
    return f"Ios16.{camel}" if kept else f"{opset.capitalize()}.{camel}", False


def histogram(function: TextFunction) -> tuple[dict[str, int], set[str]]:
    """How often each operation occurs, constants apart, and the kinds whose name is a guess."""
    counts: dict[str, int] = {}
    guessed = set()
    for op in function.ops:
        if op.kind == "const":
            continue
        name, seen = operation_name(op.kind, function.opset)
        counts[name] = counts.get(name, 0) + 1
        if not seen:
            guessed.add(op.kind)
    return counts, guessed
