"""The portable compiler, against Apple's own output and against what it cannot write."""

import base64
import hashlib
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from fluxvae.errors import ArtifactError
from fluxvae.mil.bundle import parse_data
from fluxvae.mil.compiler import compile_program, is_compiled_from, print_json
from fluxvae.mil.compiler.ops import operation_name
from fluxvae.mil.compiler.program import program_document
from fluxvae.mil.package import model_file, parse_model
from fluxvae.mil.protobuf import message_module
from fluxvae.mil.text.reader import parse_text
from fluxvae.mil.text.writer import print_text
from tests.mil.golden import PAIRS, pair, samples
from tests.packages import MODEL, WEIGHTS, copy_of, edited

Artifact = Callable[..., Path]


def without_versions(text: str) -> str:
    """Only Apple knows its compiler's versions."""
    return re.sub(r'"(coremlc-[A-Za-z-]+)", "[0-9.]+"', r'"\1", ""', text)


@pytest.mark.parametrize("name", PAIRS)
def test_package_of_apples_pair_compiles_to_apples_bytes(
    shared: Path, tmp_path: Path, name: str
) -> None:
    source, apple = pair(shared, name, tmp_path)
    made = compile_program(source, tmp_path / "ours")
    assert made.warnings == ()

    def bytes_of(file: str) -> tuple[bytes, bytes]:
        return (made.path / file).read_bytes(), (apple / file).read_bytes()

    ours, theirs = (b.decode() for b in bytes_of("model.mil"))
    assert without_versions(ours) == without_versions(theirs)
    ours_raw, theirs_raw = bytes_of("analytics/coremldata.bin")
    assert ours_raw == theirs_raw
    ours_raw, theirs_raw = bytes_of("coremldata.bin")
    assert sorted_user_metadata(ours_raw) == sorted_user_metadata(theirs_raw)
    assert len(ours_raw) == len(theirs_raw)
    ours_raw, theirs_raw = bytes_of("weights/weight.bin")
    assert ours_raw == theirs_raw
    ours, theirs = (b.decode() for b in bytes_of("metadata.json"))
    # the one thing our copy cannot give: the name of the file Apple compiled
    expected = json.loads(theirs)
    expected[0]["generatedClassName"] = "model"
    assert json.loads(ours) == expected


@pytest.mark.parametrize("name", PAIRS)
def test_apples_bundle_is_known_as_compiled_from_its_package_and_no_other(
    shared: Path, tmp_path: Path, name: str
) -> None:
    source, apple = pair(shared, name, tmp_path)
    assert is_compiled_from(apple, source)
    other = next(each for each in PAIRS if each != name)
    assert not is_compiled_from(pair(shared, other, tmp_path / "other")[1], source)
    model = model_file(source)
    model.write_bytes(model.read_bytes() + b"\0")
    assert not is_compiled_from(apple, source)


def sorted_user_metadata(content: bytes) -> tuple[bytes, bytes]:
    """The file with its description taken out, and the description in canonical order.

    Apple's compiler writes the entries of the user's metadata in an order drawn at random.
    """
    data = parse_data(content, "test")
    description = message_module("Model_pb2").ModelDescription()
    description.ParseFromString(data.description)
    return (
        content.replace(data.description, b""),
        description.SerializeToString(deterministic=True),
    )


@pytest.mark.parametrize(
    "stem", ["silero-vad-unified-v6.0.0", "unified_palette_2bit", "TransposeEncoder"]
)
def test_class_is_named_after_the_bundle_as_apple_names_it(
    shared: Path, tmp_path: Path, stem: str
) -> None:
    (apple,) = (p for p in samples(shared).rglob(f"{stem}.mlmodelc"))
    source, _ = pair(shared, "silero_palette2", tmp_path)
    made = compile_program(source.rename(source.with_name(f"{stem}.mlmodel")), tmp_path / "ours")
    names = [json.loads((b / "metadata.json").read_text())[0] for b in (apple, made.path)]
    assert names[0]["generatedClassName"] == names[1]["generatedClassName"]


def test_json_is_laid_out_as_apples(shared: Path) -> None:
    for path in samples(shared).rglob("metadata.json"):
        text = path.read_text().removesuffix("\n")
        (content,) = json.loads(text)
        assert print_json(content) == text, path


@pytest.fixture(scope="module")
def add_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The source of Apple's add_model, rebuilt from its own text: ``mul`` of two inputs."""
    messages = message_module("Model_pb2")
    model = messages.Model()
    model.specificationVersion = 7
    for features, names in ((model.description.input, "xy"), (model.description.output, ["var_3"])):
        for name in names:
            feature = features.add()
            feature.name = name
            feature.type.multiArrayType.shape.extend([1, 10])
            feature.type.multiArrayType.dataType = 65552
    function = model.mlProgram.functions["main"]
    function.opset = "CoreML6"
    block = function.block_specializations["CoreML6"]
    op = block.operations.add()
    op.type = "mul"
    for name in "xy":
        set_half(function.inputs.add(), name)
        op.inputs[name].arguments.add().name = name
    set_half(op.outputs.add(), "var_3")
    set_string(op.attributes["name"], "op_3_cast_fp16")
    block.outputs.append("var_3")
    model.mlProgram.version = 1
    info = model.mlProgram.attributes["buildInfo"]
    for part in (info.type.dictionaryType.keyType, info.type.dictionaryType.valueType):
        part.tensorType.dataType = 2
    for key, value in (
        ("coremltools-version", "8.1"),
        ("coremltools-component-torch", "2.5.1"),
        ("coremltools-source-dialect", "TorchScript"),
    ):
        entry = info.immediateValue.dictionary.values.add()
        set_string(entry.key, key)
        set_string(entry.value, value)
    path = tmp_path_factory.mktemp("add") / "add_model.mlmodel"
    path.write_bytes(model.SerializeToString())
    return path


def set_half(item: Any, name: str) -> None:
    item.name = name
    item.type.tensorType.dataType = 10
    item.type.tensorType.rank = 2
    for size in (1, 10):
        item.type.tensorType.dimensions.add().constant.size = size


def set_string(value: Any, text: str) -> None:
    value.type.tensorType.dataType = 2
    value.immediateValue.tensor.strings.values.append(text)


def test_add_model_compiles_to_apples_text_and_description(
    shared: Path, tmp_path: Path, add_model: Path
) -> None:
    samples(shared)
    apple = shared / "golden" / "add_model.mlmodelc"
    made = compile_program(add_model, tmp_path).path
    text = (apple / "model.mil").read_text().removesuffix("\n")
    assert without_versions((made / "model.mil").read_text()) == without_versions(text)
    ours, theirs = (json.loads((b / "metadata.json").read_text())[0] for b in (made, apple))
    assert ours["userDefinedMetadata"] == {}
    assert {**ours, "userDefinedMetadata": theirs["userDefinedMetadata"]} == theirs
    (_, ours_d), (_, theirs_d) = (
        sorted_user_metadata((b / "coremldata.bin").read_bytes()) for b in (made, apple)
    )
    assert theirs_d.startswith(ours_d.removesuffix(b"\xa2\x06\x00"))
    assert not (made / "weights").exists()


def test_model_hash_is_that_of_the_source(add_model: Path, tmp_path: Path) -> None:
    made = compile_program(add_model, tmp_path).path
    digest = base64.b64encode(hashlib.sha256(add_model.read_bytes()).digest())
    assert digest in (made / "analytics" / "coremldata.bin").read_bytes()


def test_user_metadata_keeps_the_order_of_the_source(
    demo_artifact: Artifact, tmp_path: Path
) -> None:
    package = demo_artifact("flux1")
    made = compile_program(package, tmp_path).path
    content = model_file(package).read_bytes()
    description = parse_data((made / "coremldata.bin").read_bytes(), "made").description
    assert description in content


def flexibility(text: str) -> list[str]:
    return re.findall(r"FlexibleShapeInformation = .*?\)\)\)\]", text)


def test_enumerated_sizes_are_written_as_apple_writes_them(
    shared: Path, demo_artifact: Artifact, tmp_path: Path
) -> None:
    """Apple's sample, with its labels and sizes replaced by ours."""
    samples(shared)
    sample = next(p for p in samples(shared).rglob("flexible_enum.mil")).read_text()
    package = demo_artifact("flux1", "64,64x96", shapes="enumerated", target="iOS18")
    made = compile_program(package, tmp_path)
    assert any("labels of enumerated shapes are guesses" in w for w in made.warnings)
    (ours,) = flexibility((made.path / "model.mil").read_text())
    (theirs,) = flexibility(sample)
    labels = re.findall(r'"([0-9a-f]{8})"', ours)
    assert labels == sorted(set(labels))
    assert len(labels) == 2
    pattern = r'"[0-9a-f]{8}", \{\{"\w+", \[[0-9, ]+\]'
    assert set(re.findall(r'\{\{"latent", (\[.*?\])', ours)) == {"[1, 16, 8, 8]", "[1, 16, 8, 12]"}
    assert '("DefaultShapes", {{"latent", [1, 16, 8, 8]}})' in ours
    plain = [re.sub(pattern, "LABEL", t).split("EnumeratedShapes")[1] for t in (ours, theirs)]
    assert plain[0] == plain[1].replace("{LABEL}}}, ", "", 1)
    kinds = [t.split("((", 1)[0] for t in (ours, theirs)]
    assert kinds[0] == kinds[1]


RANGED = {"flexible_range": [("main", 4)], "flexible_multi": [("first", 4), ("second", 2)]}


@pytest.mark.parametrize("name", RANGED)
def test_ranged_functions_compile_to_apples_text(shared: Path, tmp_path: Path, name: str) -> None:
    (sample,) = samples(shared).rglob(f"{name}.mil")
    theirs = sample.read_text()
    opset = "CoreML7" if "ios17" in theirs else "CoreML8"
    model = message_module("Model_pb2").Model()
    model.specificationVersion = 9
    for function, default in RANGED[name]:
        add_relu(model, function, opset, default, multi=len(RANGED[name]) > 1)
    if len(RANGED[name]) > 1:
        model.description.defaultFunctionName = "second"
    path = tmp_path / "input.mlmodel"
    path.write_bytes(model.SerializeToString())
    made = compile_program(path, tmp_path / "ours").path
    assert without_versions((made / "model.mil").read_text()) == without_versions(theirs)
    records = (made / "coremldata.bin").read_bytes()[-16 * len(RANGED[name]) :]
    assert records == (502).to_bytes(16, "little") * len(RANGED[name])
    (metadata,) = json.loads((made / "metadata.json").read_text())
    assert metadata["inputSchema"][0]["shapeFlexibility"] == "0...4"
    assert metadata["inputSchema"][0]["shapeRange"] == "[[0, 4]]"


def add_relu(model: Any, name: str, opset: str, default: int, *, multi: bool) -> None:
    """A ranged ReLU, as the sources of the samples hold it."""
    interface = model.description.functions.add() if multi else model.description
    if multi:
        interface.name = name
    for features, label in ((interface.input, "input"), (interface.output, "output")):
        feature = features.add()
        feature.name = label
        array = feature.type.multiArrayType
        array.shape.append(default)
        array.dataType = 65568
        span = array.shapeRange.sizeRanges.add()
        span.upperBound = 4
    function = model.mlProgram.functions[name]
    function.opset = opset
    block = function.block_specializations[opset]
    op = block.operations.add()
    op.type = "relu"
    op.inputs["x"].arguments.add().name = "input"
    for item, label in ((function.inputs.add(), "input"), (op.outputs.add(), "output")):
        item.name = label
        item.type.tensorType.dataType = 11
        item.type.tensorType.rank = 1
        item.type.tensorType.dimensions.add().unknown.variadic = False
    block.outputs.append("output")


def test_operations_the_executor_lacks_are_no_obstacle(add_model: Path, tmp_path: Path) -> None:
    model = parse_model(add_model)
    model.mlProgram.functions["main"].block_specializations["CoreML6"].operations[0].type = "novel"
    path = tmp_path / "novel.mlmodel"
    path.write_bytes(model.SerializeToString())
    made = compile_program(path, tmp_path / "made")
    assert "= novel(x = x, y = y)" in (made.path / "model.mil").read_text()
    (warning,) = made.warnings
    assert warning == "in metadata.json the versions of these operations are guesses: novel"


def test_states_are_written_though_the_executor_has_none(add_model: Path) -> None:
    model = parse_model(add_model)
    function = model.mlProgram.functions["main"]
    state = function.inputs.add()
    state.name = "memory"
    wrapped = state.type.stateType.wrappedType.tensorType
    wrapped.dataType = 10
    wrapped.dimensions.add().constant.size = 4
    text = print_text(program_document(model)[0])
    assert "(state<tensor<fp16, [4]>> memory, tensor<fp16, [1, 10]> x" in text


def test_newer_dialect_begins_with_specification_9(add_model: Path) -> None:
    model = parse_model(add_model)
    assert print_text(program_document(model)[0]).startswith("program(1.0)\n")
    model.specificationVersion = 9
    text = print_text(program_document(model)[0])
    assert text.startswith("program(1.3)\n[buildInfo = dict<string, string>(")
    assert '[name = string("op_3_cast_fp16")]' in text
    assert parse_text(text).functions[0].opset == "ios16"


def damage_blocks(model: Any, op: Any) -> None:
    op.blocks.add()


def damage_outputs(model: Any, op: Any) -> None:
    del op.outputs[:]


def damage_opset(model: Any, op: Any) -> None:
    model.mlProgram.functions["main"].opset = "CoreML99"


def damage_name(model: Any, op: Any) -> None:
    op.outputs[0].name = "a-b"


def damage_string(model: Any, op: Any) -> None:
    op.attributes["name"].immediateValue.tensor.strings.values[0] = 'a"b'


def damage_count(model: Any, op: Any) -> None:
    op.attributes["name"].immediateValue.tensor.strings.values.append("more")


def damage_value(model: Any, op: Any) -> None:
    op.attributes["name"].immediateValue.tensor.ints.values.append(3)


def damage_field(model: Any, op: Any) -> None:
    op.attributes["name"].immediateValue.tensor.bytes.values = b"text"


def damage_dtype(model: Any, op: Any) -> None:
    op.outputs[0].type.tensorType.dataType = 99


def damage_shapes(model: Any, op: Any) -> None:
    array = model.description.input[0].type.multiArrayType
    array.enumeratedShapes.SetInParent()
    array.ClearField("shape")


def damage_weights(model: Any, op: Any) -> None:
    op.attributes["name"].blobFileValue.fileName = "@model_path/../../weight.bin"


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (damage_blocks, r"nested blocks \(control flow\); how Apple's compiler .* is not known"),
        (damage_outputs, "has no result"),
        (damage_opset, "written for opset 'CoreML99'; known: CoreML5"),
        (damage_name, "the name 'a-b' is not an identifier"),
        (damage_string, "escapes such characters"),
        (damage_count, "holds 2 values"),
        (damage_value, "holds ints; the model is damaged"),
        (damage_field, "holds bytes; the model is damaged"),
        (damage_dtype, "unknown element type 99"),
        (damage_shapes, "input 'x' enumerates shapes and names none"),
        (damage_weights, "points outside itself"),
    ],
)
def test_what_cannot_be_written_is_refused_in_words(
    add_model: Path, tmp_path: Path, damage: Callable[[Any, Any], None], message: str
) -> None:
    model = parse_model(add_model)
    damage(model, model.mlProgram.functions["main"].block_specializations["CoreML6"].operations[0])
    path = tmp_path / "damaged.mlmodel"
    path.write_bytes(model.SerializeToString())
    with pytest.raises(ArtifactError, match=message):
        compile_program(path, tmp_path / "made")


def test_neural_network_is_refused(tmp_path: Path) -> None:
    model = message_module("Model_pb2").Model()
    model.specificationVersion = 4
    model.neuralNetwork.layers.add().name = "one"
    path = tmp_path / "network.mlmodel"
    path.write_bytes(model.SerializeToString())
    with pytest.raises(ArtifactError, match="takes ML Programs only"):
        compile_program(path, tmp_path)


@pytest.mark.parametrize("name", ["model.mil", "analytics", "coremldata.bin"])
def test_weight_file_may_not_take_the_place_of_another_file(
    demo_artifact: Artifact, tmp_path: Path, name: str
) -> None:
    package = copy_of(demo_artifact("flux1"), tmp_path)
    with edited(package) as model:
        for block in model.mlProgram.functions["main"].block_specializations.values():
            for op in block.operations:
                value = op.attributes.get("val")
                if value is not None and value.WhichOneof("value") == "blobFileValue":
                    value.blobFileValue.fileName = f"@model_path/{name}"
    (package / WEIGHTS).rename((package / MODEL).with_name(name))
    with pytest.raises(ArtifactError, match=f"reserved name '@model_path/{name}'"):
        compile_program(package, tmp_path / "made")
    assert not (tmp_path / "made").exists()


def histograms(shared: Path) -> list[tuple[Path, dict[str, int]]]:
    found = []
    for path in samples(shared).rglob("metadata.json"):
        found.append((path, json.loads(path.read_text())[0]["mlProgramOperationTypeHistogram"]))
    return found


def test_operations_are_named_as_in_every_sample(shared: Path) -> None:
    for path, expected in histograms(shared):
        counts: dict[str, int] = {}
        for function in parse_text(path.with_name("model.mil").read_text()).functions:
            for op in function.ops:
                if op.kind != "const":
                    name, seen = operation_name(op.kind, function.opset)
                    assert seen, (path, op.kind)
                    counts[name] = counts.get(name, 0) + 1
        assert counts == expected, path


def test_operation_names() -> None:
    """Named by the oldest opset that has the operation as it is, without a prefix for iOS15."""
    newest = {"relu": "Ios18.relu"}
    ios17 = {
        "relu": "Ios16.relu",
        "expand_dims": "Ios17.expandDims",
        "constexpr_lut_to_dense": "Ios16.constexprLutToDense",
    }
    oldest = {"ios15": {"reduce_mean": "ReduceMean"}, "ios16": {"expand_dims": "ExpandDims"}}
    for opset, names in {**oldest, "ios17": ios17, "ios18": newest}.items():
        for kind, name in names.items():
            assert operation_name(kind, opset) == (name, True)
