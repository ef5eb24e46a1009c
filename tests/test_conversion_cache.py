"""The conversion cache of the tests: what it copies, and when it stays out of the way."""

import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from fluxvae.convert import program
from fluxvae.convert.coremltools import pass_pipeline
from fluxvae.convert.fp16_cast import add_fp16_cast
from fluxvae.convert.rewrite.attention import with_attention
from fluxvae.networks.kl import KLDecoder
from fluxvae.recipes import Recipe
from fluxvae.recipes.plan import Plan, plan_of
from tests import conversion_cache, conversion_folder
from tests.artifacts import recipe
from tests.conversion_cache import behind_cache
from tests.conversion_folder import FOLDER, prune
from tests.packages import tree

Ask = Callable[..., str]


class Plain(nn.Module):
    def __init__(self, factor: float) -> None:
        super().__init__()
        self.factor = factor


@pytest.fixture
def ask(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Ask:
    """Convert by way of an empty cache; what was written holds which conversion it was."""
    monkeypatch.setenv(FOLDER, str(tmp_path / "cache"))
    written: list[Path] = []
    asked: list[Path] = []

    def write(decoder: nn.Module, plan: Plan, path: Path, **_: Any) -> None:
        path.mkdir()
        (path / "model").write_text(f"conversion {len(written)} as {path.suffix}")
        written.append(path)

    cached = behind_cache(write)

    def convert_it(
        decoder: nn.Module, made: Recipe | None = None, channels: int = 4, **options: Any
    ) -> str:
        path = tmp_path / f"{len(asked)}.mlpackage"
        asked.append(path)
        cached(decoder, plan_of(made or recipe("flux2"), channels=channels), path, **options)
        return (path / "model").read_text().split()[1]

    return convert_it


def conv(seed: float = 0.5) -> nn.Module:
    made = nn.Conv2d(1, 1, 1)
    nn.init.constant_(made.weight, seed)
    nn.init.constant_(made.bias, 0)
    return made


def test_the_same_conversion_is_made_once(ask: Ask) -> None:
    assert [ask(conv()), ask(conv())] == ["0", "0"]


def test_whatever_a_conversion_depends_on_makes_another(ask: Ask) -> None:
    made = [
        ask(conv()),
        ask(conv(0.25)),
        ask(conv().double()),
        ask(nn.Sequential(conv())),
        ask(conv(), recipe("flux1")),
        ask(conv(), channels=5),
        ask(conv(), keep={recipe("flux2").sizes[0]: frozenset({"x"})}),
        ask(Plain(1.0)),
        ask(Plain(2.0)),
    ]
    assert made == [str(i) for i in range(len(made))]


def test_a_form_of_compression_that_is_written_in_afterwards_is_not_another(ask: Ask) -> None:
    from fluxvae.recipes.compression import Compression

    target = recipe("flux2", target="iOS18")
    assert ask(conv(), target) == ask(
        conv(), recipe("flux2", target="iOS18", compression=Compression("int8", method="plain"))
    )


def test_an_entry_is_not_changed_by_who_got_a_copy(ask: Ask, tmp_path: Path) -> None:
    ask(conv())
    (tmp_path / "0.mlpackage" / "model").write_text("conversion spoilt")
    assert ask(conv()) == "0"


@pytest.mark.parametrize(
    ("owner", "name"),
    [(sys.modules[pass_pipeline.__module__], "pass_pipeline"), (add_fp16_cast, "fp16_overflow")],
    ids=["function", "method"],
)
def test_nothing_is_read_or_kept_while_the_converter_is_replaced(
    ask: Ask, monkeypatch: pytest.MonkeyPatch, owner: Any, name: str
) -> None:
    conversion_cache.install()
    with monkeypatch.context() as patched:
        patched.setattr(owner, name, lambda *_: None)
        assert [ask(conv()), ask(conv())] == ["0", "1"]
    assert [ask(conv()), ask(conv())] == ["2", "2"]


def test_messages_that_were_asked_for_and_hooks_take_a_conversion(ask: Ask) -> None:
    hooked = conv()
    hooked.register_forward_hook(lambda *_: None)
    asked = [ask(conv(), verbose=True), ask(conv(), verbose=True), ask(hooked), ask(hooked)]
    assert asked == ["0", "1", "2", "3"]


def test_the_key_has_the_source_of_all_that_converts() -> None:
    """Of the converter, of the networks and of what rewrites them, found by their imports."""
    converter = conversion_cache.BEHIND.values()
    for thing in (*converter, pass_pipeline, add_fp16_cast, Recipe, KLDecoder, with_attention):
        assert thing.__module__ in conversion_cache._imported()
    assert conversion_cache._source(Plain.__module__)  # a test's own network counts too


def test_conversions_that_share_an_exported_program_give_the_converter_s_own_bytes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(FOLDER, str(tmp_path / "cache"))
    monkeypatch.setattr(conversion_cache, "_EXPORTED", exported := {})
    network = nn.Sequential(nn.Conv2d(4, 3, 1), nn.Upsample(scale_factor=8))
    forms = ({}, {"precision": "float32"}, {"target": "iOS18"}, {"io_precision": "float32"})
    for number, fields in enumerate(forms):
        plan = plan_of(recipe("flux2", **fields), channels=4)
        made = [tmp_path / f"{name}{number}.mlpackage" for name in ("own", "shared")]
        program.write_packages(network, plan, made[0])
        conversion_cache.write_packages(network, plan, made[1])
        own, shared = (tree(path / "Data") for path in made)
        assert own == shared
        assert len(exported) == 1


def test_fluxvae_converts_by_way_of_the_cache() -> None:
    import fluxvae.artifact.save

    assert fluxvae.artifact.save.write_packages is conversion_cache.write_packages


def test_what_was_not_used_for_longest_is_removed(
    ask: Ask, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ask(conv())
    ask(conv(0.25))
    ask(conv())
    size = len("conversion 0 as .mlpackage") + 4096  # a file in a folder
    monkeypatch.setattr(conversion_folder, "LIMIT", size + 1000)
    prune(tmp_path / "cache")
    assert [ask(conv()), ask(conv(0.25))] == ["0", "2"]


def test_torch_has_as_many_threads_as_conftest_says() -> None:
    """The variable comes before the import of torch, also in xdist's workers."""
    assert torch.get_num_threads() == int(os.environ["OMP_NUM_THREADS"])
