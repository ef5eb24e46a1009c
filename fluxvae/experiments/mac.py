"""One command for a Mac: every step for a fixed list of models, resumable, in one record.

Each artifact is converted and compiled, judged by the reference executor, and then validated,
timed, planned and repeated through Swift on every set of compute units. A rehearsal runs the same
steps without a Mac: what the CPU can do there is done by the reference executor and labelled so,
the rest is "not run".

Not run on a Mac yet.
"""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, replace
from typing import Any

from fluxvae import __version__
from fluxvae.errors import FluxVAEError
from fluxvae.experiments.mac_steps import STEPS, Step, StepContext
from fluxvae.experiments.plan import Pace, tool_versions
from fluxvae.files import data_sha256
from fluxvae.recipes import Recipe, Size, parse_label
from fluxvae.records.experiment import Host, cell_path
from fluxvae.records.harness import UNITS
from fluxvae.records.mac import (
    EACH,
    Artifact,
    Cell,
    KeptCell,
    Kind,
    MacRecord,
    Status,
    Task,
)
from fluxvae.schema import load_kept, save

NEEDS_A_MAC = "needs a Mac"
MEASURED: tuple[Kind, ...] = ("validate", "bench", "plan")  # on one set of units after another
REHEARSED_UNITS = ("cpuOnly",)
# Every form that ``known_trouble`` has reports about, and next to each the one it is compared with:
# tables with and without scales, integers in blocks and by channel, int8.
COMPRESSED = (
    *("pal4-channel-scale-plain", "pal4-tensor-plain", "int4-block32-plain"),
    *("int4-channel-plain", "int8-plain"),
)
Clock = Callable[[], float]


def default_recipes(variants: Sequence[str], sizes: Sequence[Size]) -> tuple[Recipe, ...]:
    """What a report is about: layouts, precisions and shape forms of each variant's decoder.

    Every size as a fixed fp16 model, the largest in NHWC and in fp32 too, and all sizes together
    as a multifunction and as an enumerated model where there are several. The smallest also in
    ``COMPRESSED``.
    """
    recipes = []
    for variant in variants:
        fixed = [Recipe(variant, sizes=(size,)) for size in sizes]
        largest = fixed[-1]
        recipes += [*fixed, replace(largest, layout="nhwc"), replace(largest, precision="float32")]
        if len(sizes) > 1:
            recipes += [
                Recipe(variant, sizes=tuple(sizes), shapes=shapes)
                for shapes in ("multifunction", "enumerated")
            ]
        recipes += [replace(fixed[0], compression=parse_label(label)) for label in COMPRESSED]
    return tuple(recipes)


def tasks_of(name: str, recipe: Recipe, *, rehearsal: bool = False) -> Iterator[Task]:
    """Every step of one artifact, in the order they are done.

    Drift runs once a size, on all units in one call, since it compares them with the CPU. A
    rehearsal has the CPU alone and repeats on that besides.
    """
    yield Task(name, "convert")
    yield Task(name, "compile")
    yield Task(name, "executor")
    for size in map(str, recipe.sizes):
        for kind in MEASURED:
            for units in UNITS:
                yield Task(name, kind, size, units)
        for units in (*(REHEARSED_UNITS if rehearsal else ()), EACH):
            yield Task(name, "drift", size, units)


def needs_a_mac(task: Task) -> bool:
    """Whether a rehearsal has to leave it out: other devices, and every compute plan."""
    return task.kind == "plan" or (task.units is not None and task.units not in REHEARSED_UNITS)


def run_report(
    contexts: Sequence[StepContext],
    host: Host,
    *,
    rehearsal: bool,
    say: Callable[[str], None] = lambda _: None,
    steps: Mapping[str, Step] = STEPS,
    clock: Clock = time.monotonic,
) -> MacRecord:
    """Do every task that is not done yet. ``contexts`` share one folder and one list of settings.

    A step that fails is recorded with its reason and does not stop the others of other artifacts;
    those of its own artifact that need its files then fail with theirs. Interrupting is safe: the
    next call takes up what is there.
    """
    tasks = [(t, c) for c in contexts for t in tasks_of(c.name, c.recipe, rehearsal=rehearsal)]
    left_out = {t for t, _ in tasks if rehearsal and needs_a_mac(t)}
    cells: list[Cell] = []
    pace = Pace()
    for number, (task, context) in enumerate(tasks, start=1):
        if task in left_out:
            cells.append(Cell(task, "not run", NEEDS_A_MAC, 0.0, {}))
            continue
        key = _key(context, task, host, rehearsal)
        title = f"{number}/{len(tasks)} {task.artifact} {task.name}"
        path = cell_path(context.folder, task.artifact, task.name)
        kept = load_kept(KeptCell, path, key, context.made(task))
        if kept is not None and not kept.cell.failed:
            cell = kept.cell
            say(f"{title}: done before")
        else:
            rest = [t.kind for t, _ in tasks[number - 1 :] if t not in left_out]
            say(f"{title} ({pace.left(rest)})")
            cell = _do(steps[task.kind], context, task, rehearsal, clock)
            save(KeptCell(key, cell), path)
        pace.add(cell.seconds, task.kind)
        cells.append(cell)
    artifacts = tuple(
        Artifact(c.name, c.recipe.to_dict(), c.weights.digest, c.encoder_digest, c.cases)
        for c in contexts
    )
    settings = asdict(contexts[0].settings)
    return MacRecord(__version__, rehearsal, host, settings, artifacts, tuple(cells))


def _do(step: Step, context: StepContext, task: Task, rehearsal: bool, clock: Clock) -> Cell:
    start = clock()
    try:
        result = step(context, task)
    except FluxVAEError as error:
        return Cell(task, "failed", str(error), clock() - start, {})
    through_core_ml = task.units is not None
    status: Status = "rehearsed" if rehearsal and through_core_ml else "done"
    return Cell(task, status, None, clock() - start, result)


def _key(context: StepContext, task: Task, host: Host, rehearsal: bool) -> str:
    judged = task.kind in ("executor", "validate")  # what the encoder's photos go through
    parts: dict[str, Any] = {
        "task": asdict(task),
        "recipe": context.recipe.to_dict(),
        "weights": context.weights.digest,
        "encoder": context.encoder_digest if judged else None,
        "cases": context.cases if judged else (),
        "settings": asdict(context.settings) if task.units is not None else {},
        "host": asdict(host),
        "rehearsal": rehearsal,
        "versions": tool_versions(),
    }
    return data_sha256(parts)
