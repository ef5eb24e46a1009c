"""The table of operations: entering, looking up, and its document."""

import importlib.util
from pathlib import Path

import pytest
from torch import Tensor

from fluxvae.errors import UnsupportedOpError
from fluxvae.mil import ops as ops
from fluxvae.mil.program import TensorType
from fluxvae.mil.registry import REGISTRY, Ints, Registry

ROOT = Path(__file__).resolve().parents[2]


def test_unknown_operation_is_refused_with_the_nearest_name() -> None:
    with pytest.raises(UnsupportedOpError, match=r"'conv_transpos' at 'here'.*'conv_transpose'"):
        REGISTRY.lookup("conv_transpos", "CoreML7", "'here'")


def test_operation_with_no_near_name_is_refused_without_a_hint() -> None:
    with pytest.raises(UnsupportedOpError, match=r"'zzzzzz' .* executor; docs/ops.md"):
        REGISTRY.lookup("zzzzzz", "CoreML7", "'here'")


def test_unknown_opset_is_refused_with_the_known_ones() -> None:
    with pytest.raises(UnsupportedOpError, match=r"'CoreML4' of 'here'.*CoreML5, CoreML6"):
        REGISTRY.lookup("conv", "CoreML4", "'here'")


@pytest.mark.parametrize(
    ("opset", "fits"), [("CoreML7", False), ("CoreML8", True), ("CoreML9", True)]
)
def test_operation_is_found_from_its_first_opset_on(opset: str, fits: bool) -> None:
    name = "scaled_dot_product_attention"  # documented as new in iOS18
    if fits:
        assert REGISTRY.lookup(name, opset, "'here'").name == name
    else:
        with pytest.raises(UnsupportedOpError, match=r"exists since iOS18.* opset is iOS17"):
            REGISTRY.lookup(name, opset, "'here'")


def test_second_definition_of_a_name_is_refused() -> None:
    registry = Registry()
    registry.op("twice")(lambda: None)
    with pytest.raises(ValueError, match="'twice' is defined twice"):
        registry.op("twice")(lambda: None)


def test_unknown_target_is_refused() -> None:
    with pytest.raises(ValueError, match="since='iOS14'"):
        Registry().op("early", since="iOS14")


def test_annotation_the_executor_cannot_convert_is_refused() -> None:
    def run(*, x: list[int]) -> None: ...

    with pytest.raises(ValueError, match="'x' has the unknown kind"):
        Registry().op("odd")(run)


def test_parameter_out_is_refused_unless_it_is_a_type() -> None:
    def run(*, out: int) -> None: ...

    with pytest.raises(ValueError, match="'out' must be annotated TensorType"):
        Registry().op("odd")(run)


def test_annotations_become_parameters() -> None:
    registry = Registry()

    @registry.op("example", since="iOS16", exact=True)
    def run(*, x: Tensor, axes: Ints | None = None, out: TensorType) -> Tensor:
        """First line.

        More.
        """
        return x

    spec = registry["example"]
    assert spec.wants_out
    assert spec.exact
    assert spec.summary == "First line."
    assert {k: (p.kind, p.required) for k, p in spec.parameters.items()} == {
        "x": (Tensor, True),
        "axes": (Ints, False),
    }


def test_every_operation_has_a_summary() -> None:
    assert [s.name for s in REGISTRY if not s.summary] == []


def test_document_of_operations_is_current() -> None:
    script = ROOT / "scripts" / "generate_ops_doc.py"
    spec = importlib.util.spec_from_file_location("generate_ops_doc", script)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    stored = (ROOT / "docs" / "ops.md").read_text(encoding="utf-8")
    assert stored == module.document(), "run: python scripts/generate_ops_doc.py"
