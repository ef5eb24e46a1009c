"""Recipes: sizes, combinations that cannot be made, names, targets, plain data and back."""

import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fluxvae.errors import UsageError
from fluxvae.recipes import (
    FORMATS,
    LAYOUTS,
    MAC_TARGETS,
    OUTPUTS,
    PRECISIONS,
    SHAPES,
    TARGETS,
    Recipe,
    Size,
    artifact_name,
    latent_shape,
    parse_sizes,
)

SIDES = st.integers(8, 512).map(lambda n: 8 * n)
SIZES = st.builds(Size, SIDES, SIDES)


def make(variant: str = "flux2", sizes: str = "768", **fields: object) -> Recipe:
    return Recipe(variant, sizes=parse_sizes(sizes), **fields)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("768", [(768, 768)]),
        ("768,1024", [(768, 768), (1024, 1024)]),
        ("1024, 768", [(1024, 1024), (768, 768)]),
        ("768x1344", [(768, 1344)]),
        ("768X1344,64", [(768, 1344), (64, 64)]),
        ("4096", [(4096, 4096)]),
    ],
)
def test_sizes_are_read_in_the_given_order(text: str, expected: list[tuple[int, int]]) -> None:
    assert [(s.height, s.width) for s in parse_sizes(text)] == expected


@pytest.mark.parametrize("text", ["100", "768x100", "56", "4104", "0", "99999999", "768x"])
def test_impossible_size_is_refused_with_its_value(text: str) -> None:
    with pytest.raises(UsageError) as caught:
        parse_sizes(text)
    assert text in str(caught.value)
    assert "768x1344" in str(caught.value)
    assert caught.value.exit_code == 2


@pytest.mark.parametrize("text", ["", "big", "768;1024", "-768", "768,", "7.5", "768x1344x3"])
def test_text_that_is_no_size_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="is not understood: give pixels"):
        parse_sizes(text)


@pytest.mark.parametrize("text", ["768,768", "768,768x768", "768x1344,768x1344"])
def test_repeated_size_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="twice"):
        parse_sizes(text)


@settings(deadline=None)  # a busy machine takes longer than 200 ms for one example now and then
@given(st.lists(SIZES, min_size=1, max_size=4, unique=True))
def test_sizes_written_out_are_read_back(sizes: list[Size]) -> None:
    assert parse_sizes(",".join(map(str, sizes))) == tuple(sizes)


@given(st.lists(SIZES, min_size=2, max_size=5, unique=True))
def test_functions_of_different_sizes_have_different_names(sizes: list[Size]) -> None:
    names = {s.function for s in sizes}
    assert len(names) == len(sizes)
    assert all(name.isidentifier() for name in names)  # Core ML takes identifiers only


REFUSED = [
    ({"sizes": "768,1024"}, "several sizes need --shapes"),
    ({"shapes": "enumerated"}, "--shapes enumerated needs two sizes"),
    ({"shapes": "multifunction"}, "--shapes multifunction needs two sizes"),
    ({"nhwc_model": True}, "use it with --layout nhwc"),
    ({"format": "neuralnetwork"}, "use --precision float32"),
    (
        {"format": "neuralnetwork", "precision": "float32", "io_precision": "float16"},
        "float32 input and output only",
    ),
    (
        {
            "format": "neuralnetwork",
            "precision": "float32",
            "sizes": "768,1024",
            "shapes": "multifunction",
        },
        "use --shapes enumerated",
    ),
    ({"format": "neuralnetwork", "precision": "float32", "target": "iOS16"}, "leave --target out"),
    ({"target": "iOS15"}, "float16 input needs iOS16"),
    ({"precision": "float32", "io_precision": "float16", "target": "iOS15"}, "needs iOS16"),
    ({"sizes": "768,1024", "shapes": "multifunction", "target": "iOS17"}, "needs iOS18"),
    ({"precision": "float8"}, "none of ['float16', 'float32']"),
    ({"target": "iOS14"}, "none of ['iOS15'"),
    ({"variant": "sd3"}, "known: flux1, flux2"),
    ({"variant": "flux3"}, "FLUX 3 is newer"),
]


@pytest.mark.parametrize(("fields", "words"), REFUSED, ids=[words for _, words in REFUSED])
def test_combination_that_cannot_be_made_is_a_usage_error(
    fields: dict[str, object], words: str
) -> None:
    with pytest.raises(UsageError) as caught:
        make(**fields)
    assert words in str(caught.value)
    assert caught.value.exit_code == 2


@pytest.mark.parametrize(
    ("fields", "target"),
    [
        ({}, "iOS16"),  # coremltools: float16 input and output from iOS16 on
        ({"precision": "float32"}, "iOS15"),  # ML Programs from iOS15 on
        ({"io_precision": "float32"}, "iOS15"),
        ({"precision": "float32", "io_precision": "float16"}, "iOS16"),
        ({"sizes": "768,1024", "shapes": "multifunction", "precision": "float32"}, "iOS18"),
        ({"sizes": "768,1024", "shapes": "enumerated"}, "iOS16"),
        ({"target": "iOS26"}, "iOS26"),
        ({"format": "neuralnetwork", "precision": "float32"}, None),
    ],
)
def test_target_is_the_oldest_that_can_unless_given(
    fields: dict[str, object], target: str | None
) -> None:
    assert make(**fields).deployment_target == target


def test_targets_are_those_coremltools_knows() -> None:
    import coremltools as ct

    for target in TARGETS:
        assert hasattr(ct.target, target)
    for mac, target in MAC_TARGETS.items():  # coremltools has both as one enumeration value
        assert getattr(ct.target, mac) == getattr(ct.target, target)


@pytest.mark.parametrize(
    ("fields", "name"),
    [
        ({"sizes": "1024"}, "flux2_tiny_decoder_nchw_float16_hw1024"),
        ({"layout": "nhwc"}, "flux2_tiny_decoder_nhwc_float16_hw768"),
        ({"layout": "nhwc", "nhwc_model": True}, "flux2_tiny_decoder_nhwcmodel_float16_hw768"),
        ({"io_precision": "float32"}, "flux2_tiny_decoder_nchw_float16_iofloat32_hw768"),
        ({"io_precision": "float16"}, "flux2_tiny_decoder_nchw_float16_hw768"),
        ({"sizes": "768x1344"}, "flux2_tiny_decoder_nchw_float16_hw768x1344"),
        (
            {"sizes": "768,1024", "shapes": "multifunction", "output": "image"},
            "flux2_tiny_decoder_nchw_float16_hw768-1024_multifunction_image",
        ),
        (
            {"sizes": "768,64x128", "shapes": "enumerated", "target": "iOS18"},
            "flux2_tiny_decoder_nchw_float16_hw768x768-64x128_enumerated_iOS18",
        ),
    ],
)
def test_name_says_what_is_inside(fields: dict[str, object], name: str) -> None:
    recipe = make(**fields)
    assert recipe.name() == name
    assert artifact_name(recipe, "hub") == f"{name}.mlpackage"
    assert artifact_name(recipe, "demo") == f"{name}_demo.mlpackage"
    assert artifact_name(recipe, "random") == f"{name}_random.mlpackage"


def test_neural_network_is_a_single_file() -> None:
    recipe = make(format="neuralnetwork", precision="float32")
    assert Path(artifact_name(recipe, "file")).suffix == ".mlmodel"


def test_latent_has_the_layout_of_the_recipe() -> None:
    size = Size(768, 1344)
    assert latent_shape(make(), size, 32) == (1, 32, 96, 168)
    assert latent_shape(make(layout="nhwc"), size, 32) == (1, 96, 168, 32)


@st.composite
def recipes(draw: st.DrawFn) -> Recipe:
    """Any recipe that can be made; what a choice excludes is taken out before drawing."""
    network = draw(st.sampled_from(FORMATS)) == "neuralnetwork"
    sizes = draw(st.lists(SIZES, min_size=1, max_size=3, unique=True))
    several = [s for s in SHAPES if s != "fixed" and not (network and s == "multifunction")]
    shapes = "fixed" if len(sizes) == 1 else draw(st.sampled_from(several))
    precision = "float32" if network else draw(st.sampled_from(PRECISIONS))
    io = "auto" if network else draw(st.sampled_from(("auto", *PRECISIONS)))
    layout = draw(st.sampled_from(LAYOUTS))
    outputs = [o for o in OUTPUTS if not (network and shapes == "enumerated" and o == "image")]
    fields = {
        "variant": draw(st.sampled_from(("flux1", "flux2"))),
        "precision": precision,
        "io_precision": io,
        "layout": layout,
        "nhwc_model": layout == "nhwc" and draw(st.booleans()),
        "sizes": tuple(sizes),
        "shapes": shapes,
        "output": draw(st.sampled_from(outputs)),
        "format": "neuralnetwork" if network else "mlprogram",
    }
    least = Recipe(**fields).deployment_target
    newer = TARGETS[TARGETS.index(least) :] if least else ()
    return Recipe(**fields, target=draw(st.sampled_from((None, *newer))))


@given(recipes())
def test_recipe_survives_json(recipe: Recipe) -> None:
    assert Recipe.from_dict(json.loads(json.dumps(recipe.to_dict()))) == recipe


@given(recipes(), recipes())
def test_different_recipes_have_different_names(one: Recipe, other: Recipe) -> None:
    def made(recipe: Recipe) -> dict[str, object]:
        """What decides the file: io_precision may be said in two ways."""
        return {**recipe.to_dict(), "io_precision": recipe.io_dtype}

    names = [artifact_name(r, "hub") for r in (one, other)]
    assert (names[0] == names[1]) == (made(one) == made(other))


@pytest.mark.parametrize(
    ("data", "words"),
    [
        ({"variant": "flux1", "sizes": ["64"], "colour": "red"}, "not a recipe: "),
        ({"sizes": ["64"]}, "not a recipe: "),
        ({"variant": "flux1", "sizes": 64}, "must be a list"),
        ({"variant": "flux1", "sizes": ["65"]}, "size 65 is not possible"),
        ({"variant": "flux1"}, "is not understood"),
    ],
)
def test_data_that_is_no_recipe_is_refused(data: dict[str, object], words: str) -> None:
    with pytest.raises(UsageError) as caught:
        Recipe.from_dict(data)
    assert words in str(caught.value)


def test_fields_of_the_full_decoders_are_left_out_at_their_defaults_and_read_back() -> None:
    plain = make()
    assert not {"decoder", "attention", "latents", "fp16_safety", "chunks"} & plain.to_dict().keys()
    full = make(decoder="full", attention="chunked:512", latents="packed", fp16_safety="mixed")
    assert Recipe.from_dict(json.loads(json.dumps(full.to_dict()))) == full
    assert full.latent_form == "packed"
    assert (plain.latent_form, make(decoder="full").latent_form) == ("sampler", "vae")


def test_names_of_full_decoders_tell_what_was_chosen_alone() -> None:
    full = make(decoder="full")
    assert full.name() == "flux2_full_decoder_nchw_float16_hw768"
    assert full.resolved().attention == "chunked:1024"
    assert full.resolved().name() == full.name()
    assert make(decoder="full", attention="split-einsum").name().endswith("hw768_attn-split-einsum")
    assert make(decoder="small", sizes="256").resolved().attention == "channels-first"
