"""The guard against packages that were damaged after they were written."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fluxvae.compress.forms import Activation, CompressedDecoder
from fluxvae.compress.guard import check_weights
from fluxvae.errors import ArtifactError, CompressionError
from fluxvae.mil.executor import Session
from fluxvae.mil.package import read_package
from fluxvae.recipes import Recipe, parse_sizes
from tests.compress.packages import LATENT, SITES, Bases, compressed_as, small_decoder
from tests.conversion_cache import write_model
from tests.packages import WEIGHTS, copy_of, edited

FORMS = {"5": "pal4-scaled", "7": "int8-channel", "9": "int8-channel", "10.conv.0": "pal6"}
ROUNDING = {"7": Activation(0.03125, -128), "9": Activation(0.0625, -128)}


@pytest.fixture(scope="module")
def asked() -> CompressedDecoder:
    return compressed_as(small_decoder(), FORMS, ROUNDING)


@pytest.fixture(scope="module")
def good(bases: Bases, asked: CompressedDecoder, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return bases.written(asked, tmp_path_factory.mktemp("good"), "iOS18", "float16")


def operations(model: Any) -> Any:
    (function,) = model.mlProgram.functions.values()
    return function.block_specializations[function.opset].operations


def conv(model: Any, site: str) -> Any:
    found = [o for o in operations(model) if o.type == "conv"]
    return found[SITES.index(site)]


def maker(model: Any, name: str) -> Any:
    return next(o for o in operations(model) if o.outputs[0].name == name)


def reads(operation: Any, argument: str) -> str:
    return str(operation.inputs[argument].arguments[0].name)


def weight(model: Any, site: str) -> Any:
    return maker(model, reads(conv(model, site), "weight"))


def flip(package: Path, offset: int, mask: int = 1) -> None:
    """Change one byte of the data that the blob record at ``offset`` points at."""
    content = np.fromfile(package / WEIGHTS, np.uint8)
    start = int(content[offset + 16 : offset + 24].view("<u8")[0])
    content[start + 5] ^= mask
    content.tofile(package / WEIGHTS)


def blob(value: Any) -> int:
    assert value.WhichOneof("value") == "blobFileValue"
    return int(value.blobFileValue.offset)


def operand(operation: Any, name: str) -> Any:
    return operation.inputs[name].arguments[0].value


def a_byte_of(find: Callable[[Any], Any]) -> Callable[[Path], None]:
    """Damage to the stored value that ``find`` finds in a model."""

    def damage(package: Path) -> None:
        with edited(package) as model:
            offset = blob(find(model))
        flip(package, offset)

    return damage


def table(model: Any) -> Any:
    return maker(model, reads(weight(model, "5"), "data"))


def bias(model: Any) -> Any:
    return maker(model, reads(conv(model, "1"), "bias"))


an_index = a_byte_of(lambda model: operand(weight(model, "10.conv.0"), "indices"))
an_integer = a_byte_of(lambda model: operand(weight(model, "7"), "data"))
a_table_entry = a_byte_of(lambda model: operand(table(model), "lut"))
a_channels_scale = a_byte_of(lambda model: operand(weight(model, "5"), "scale"))
a_plain_weight = a_byte_of(lambda model: weight(model, "11").attributes["val"])
a_bias = a_byte_of(lambda model: bias(model).attributes["val"])


def a_missing_bias(package: Path) -> None:
    with edited(package) as model:
        del conv(model, "1").inputs["bias"]


def a_dropped_weight(package: Path) -> None:
    """A constant of zeros where the compressed weight was."""
    with edited(package) as model:
        operation = weight(model, "7")
        shape = [d.constant.size for d in operation.outputs[0].type.tensorType.dimensions]
        operation.type = "const"
        operation.inputs.clear()
        value = operation.attributes["val"]
        value.type.CopyFrom(operation.outputs[0].type)
        value.immediateValue.tensor.bytes.values = bytes(2 * int(np.prod(shape)))


def exchange(one: Any, two: Any) -> None:
    kept = type(one)()
    kept.CopyFrom(one)
    one.CopyFrom(two)
    two.CopyFrom(kept)


def two_weights_exchanged(package: Path) -> None:
    with edited(package) as model:
        for name in ("data", "scale"):
            exchange(*(operand(weight(model, site), name) for site in "79"))


def two_plain_weights_exchanged(package: Path) -> None:
    with edited(package) as model:
        exchange(*(weight(model, f"3.conv.{i}").attributes["val"] for i in (0, 2)))


def another_scale_behind(package: Path) -> None:
    with edited(package) as model:
        seven, nine = (maker(model, reads(conv(model, site), "x")) for site in "79")
        nine.inputs["scale"].CopyFrom(seven.inputs["scale"])


def a_rounding_scale(package: Path) -> None:
    with edited(package) as model:
        dequantize = maker(model, reads(conv(model, "7"), "x"))
        quantize = maker(model, reads(dequantize, "input"))
        for operation in (quantize, dequantize):
            value = maker(model, reads(operation, "scale")).attributes["val"]
            value.immediateValue.tensor.bytes.values = np.float16(0.0315).tobytes()


def a_zero_point(package: Path) -> None:
    with edited(package) as model:
        dequantize = maker(model, reads(conv(model, "7"), "x"))
        for operation in (maker(model, reads(dequantize, "input")), dequantize):
            del operation.inputs["zero_point"]


def no_rounding(package: Path) -> None:
    with edited(package) as model:
        convolution = conv(model, "7")
        dequantize = maker(model, reads(convolution, "x"))
        quantize = maker(model, reads(dequantize, "input"))
        convolution.inputs["x"].arguments[0].name = reads(quantize, "input")


def rounding_of_another(package: Path) -> None:
    """Convolution 10.conv.0, which was to read its input as it is, reads one rounded to 8 bits."""
    with edited(package) as model:
        source = reads(conv(model, "9"), "x")
        conv(model, "11").inputs["x"].arguments[0].name = source


def a_missing_convolution(package: Path) -> None:
    with edited(package) as model:
        last = conv(model, "11")
        last.type = "relu"
        for key in [k for k in last.inputs if k != "x"]:
            del last.inputs[key]


PLACES = r"differs from what was asked in \d+ of \d+ values, by up to [\d.e+-]+"
DAMAGE: dict[str, tuple[Callable[[Path], None], str]] = {
    "an index": (an_index, rf"weight of convolution 10\.conv\.0 .* {PLACES}"),
    "an integer": (
        an_integer,
        r"weight of convolution 7 .* differs from what was asked in 1 of 2304 values",
    ),
    "a table entry": (a_table_entry, rf"weight of convolution 5 .* {PLACES}"),
    "a channels scale": (a_channels_scale, rf"weight of convolution 5 .* {PLACES}"),
    "a plain weight": (a_plain_weight, rf"weight of convolution 11 .* {PLACES}"),
    "a bias": (a_bias, rf"bias of convolution 1 .* {PLACES}"),
    "a missing bias": (a_missing_bias, "bias of convolution 1 .* is missing"),
    "a dropped weight": (a_dropped_weight, rf"weight of convolution 7 .* {PLACES}"),
    "two weights exchanged": (
        two_weights_exchanged,
        r"weight of convolution 7 .* \(it is that of 9\)",
    ),
    "two plain weights exchanged": (
        two_plain_weights_exchanged,
        r"3\.conv\.0 .* \(it is that of 3\.conv\.2\)",
    ),
    "another scale behind": (another_scale_behind, "have different scales or zero points"),
    "a rounding scale": (
        a_rounding_scale,
        r"input of convolution 7 .* scale 0\.0314941.* expected .* 0\.03125",
    ),
    "a zero point": (
        a_zero_point,
        "input of convolution 7 .* zero point 0; expected .* zero point -128",
    ),
    "no rounding": (
        no_rounding,
        "input of convolution 7 .* is not rounded to 8 bits; expected rounded to int8",
    ),
    "rounding of another": (rounding_of_another, "input of convolution 11 .* expected none"),
    "a missing convolution": (
        a_missing_convolution,
        "has 12 convolutions and linear layers; 13 were asked for",
    ),
}


@pytest.mark.parametrize("case", DAMAGE)
def test_damage_is_named(good: Path, asked: CompressedDecoder, tmp_path: Path, case: str) -> None:
    (damage, said), package = DAMAGE[case], copy_of(good, tmp_path)
    check_weights(package, asked, "float16")
    damage(package)
    Session(read_package(package))  # still a package that the executor takes
    with pytest.raises(CompressionError, match=said):
        check_weights(package, asked, "float16")


def test_form_that_was_not_asked_for_is_caught(good: Path) -> None:
    decoder = small_decoder()
    fewer = compressed_as(decoder, {k: v for k, v in FORMS.items() if k != "5"}, ROUNDING)
    with pytest.raises(CompressionError, match="weight of convolution 5 "):
        check_weights(good, fewer, "float16")


def test_plain_package_is_held_against_the_decoder(bases: Bases, tmp_path: Path) -> None:
    package = copy_of(bases.base("iOS18", "float16"), tmp_path)
    check_weights(package, small_decoder(), "float16")
    with pytest.raises(CompressionError, match=r"weight of convolution 1 .* in 576 of 576 values"):
        check_weights(package, small_decoder(1), "float16")
    a_plain_weight(package)
    with pytest.raises(CompressionError, match="weight of convolution 11 "):
        check_weights(package, small_decoder(), "float16")


def test_factor_of_an_image_output_is_known(tmp_path: Path) -> None:
    """Without compression coremltools merges the factor 255 into the last convolution."""
    recipe = Recipe("flux2", sizes=parse_sizes("64"), output="image", target="iOS18")
    package = tmp_path / "image.mlpackage"
    write_model(small_decoder(), recipe, LATENT, package)
    check_weights(package, small_decoder(), "float16")
    a_plain_weight(package)
    with pytest.raises(CompressionError, match="weight of convolution 11 "):
        check_weights(package, small_decoder(), "float16")


def test_truncated_weight_file_is_an_artifact_error(
    good: Path, asked: CompressedDecoder, tmp_path: Path
) -> None:
    package = copy_of(good, tmp_path)
    content = (package / WEIGHTS).read_bytes()
    (package / WEIGHTS).write_bytes(content[: len(content) // 2])
    with pytest.raises(ArtifactError, match="truncated"):
        check_weights(package, asked, "float16")
