"""The attention's forms by name, and which one ``auto`` stands for. Standard library only."""

from fluxvae.errors import UsageError

# plain: diffusers' own; sdpa: iOS 18's operation; all of them: fluxvae.convert.rewrite.attention.
ATTENTION = ("auto", "plain", "channels-first", "chunked", "split-einsum", "sdpa")
_QUERIES = 1024  # at a time; 512 save a quarter more and double the operations
_MEGABYTE = 1e6


def parse_attention(text: str) -> tuple[str, int | None]:
    """``chunked:1024`` to ("chunked", 1024): a form and how many queries it computes at a time.

    The number is None where the form computes all of them at once. Raises UsageError.
    """
    form, colon, digits = text.partition(":")
    number = int(digits) if digits.isascii() and digits.isdigit() else 0
    if form not in ATTENTION:
        raise UsageError(
            f"attention {text!r} is none of auto, plain, channels-first, chunked:N, split-einsum "
            "and sdpa"
        )
    if form == "chunked" and not colon:
        raise UsageError("attention 'chunked' needs a number of queries, such as chunked:1024")
    if colon and (form in ("auto", "sdpa", "channels-first") or number < 1):
        raise UsageError(
            f"attention {text!r} is not understood: a number of queries of at least 1 goes with "
            "chunked, plain and split-einsum, as in chunked:1024"
        )
    return form, number or None


def choose_attention(places: int, precision: str, newest: bool) -> tuple[str, str]:
    """The form for a map of ``places`` latent pixels, and why, in a sentence.

    ``newest``: the target has the attention operation (iOS18 on). The scores of all queries and
    their softmax are the largest values of the whole decoder at 1024 px; a few queries at a time
    need no more than a feature map.
    """
    width = 2 if precision == "float16" else 4

    def megabytes(queries: int) -> str:
        return f"{2 * queries * places * width / _MEGABYTE:.3g} MB"

    if places <= _QUERIES:
        return "channels-first", f"all scores at once take {megabytes(places)} ({places} places)"
    why = (
        f"{_QUERIES} queries at a time hold {megabytes(_QUERIES)} of scores, all {places} at once "
        f"{megabytes(places)}"
    )
    if newest:
        why += "; sdpa was not chosen, as its memory on devices is not known"
    return f"chunked:{_QUERIES}", why
