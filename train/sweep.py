"""What a family's models cost and are worth at many settings: `python -m train.sweep FAMILY`.

A cell is one model with one sampler, number of steps, guidance and caching. Cells go to
assets/zoo/FAMILY.json, cheapest first, each as soon as it is measured. Those that are there are not measured
again: several commands may fill one table, and one that was stopped continues.
"""

import itertools
import shlex
import shutil
import sys
from dataclasses import dataclass, fields, replace
from pathlib import Path

import tyro
from filelock import FileLock, Timeout
from tqdm import tqdm

from dit.command import exit_status
from dit.digest import digest_of
from dit.flops import macs
from dit.measured import Cell, Family, MeasuredModel, load_family, save_family
from dit.pipeline import find_device
from dit.speed import machine
from dit.weights import ZOO, WeightsError, load, locate, outline
from train.cells import Filled, Task, fill, judged_by, macs_of_task
from train.classifier import check_samples
from train.draws import Draw
from train.family import FAMILIES, learnt_by
from train.jobs import at_once, usual_jobs
from train.judging import Judging
from train.pass_times import PassTime, time_passes
from train.record import commit


@dataclass(frozen=True)
class Sweep(Judging):
    """Measure all combinations of models and settings; the same command continues."""

    family: tyro.conf.Positional[str] = "solids"
    """of which table; a family of train.family has its models, for another give them"""
    models: tuple[str, ...] = ()
    """bundled names or weights files; default: those of the family that are bundled"""
    samplers: tuple[str, ...] = ("ddim",)
    """ddim, dpm-solver++, ddpm; of a flow euler, heun, sde; of an EDM model heun"""
    steps: tuple[int, ...] = (1, 2, 4, 8, 16, 32, 64, 128, 250)
    """numbers of steps"""
    guidance: tuple[float, ...] = (1.0,)
    """guidance scales; 1 is none"""
    guidance_interval: tuple[float, float] | None = None
    """lowest and highest guided timestep; default: all"""
    cache_every: tuple[int, ...] = (1,)
    """steps from one at which blocks compute to the next (see dit.step_cache); 1: all do"""
    samples: int = 5000
    """pictures a cell"""
    batch_size: int = 50
    """pictures drawn together; a GPU wants many more"""
    seed: int = 0
    """of the first; each further one has the next"""
    max_gmacs: float = 0.0
    """leave out cells that cost more a picture; 0: none"""
    work_dir: Path = Path("runs/sweep")
    """keeps the pictures of cells that are not done"""
    jobs: int = 0
    """cells at a time; 0: one where there is a GPU, else one a thread"""
    device: str = "auto"
    """auto (every CUDA GPU, else what there is), cpu, cuda, ..."""
    time: bool = False
    """time the passes of all models again, on a machine that does nothing else"""
    out: Path | None = None
    """the table; default: assets/zoo/FAMILY.json"""

    def __post_init__(self) -> None:
        for name in ("samplers", "steps", "guidance", "cache_every"):
            if not (values := getattr(self, name)) or len(set(values)) < len(values):
                raise ValueError(f"{name} is {values}; give at least one value, and each once")
        if self.samples < 2 or self.batch_size < 1:
            raise ValueError(
                f"samples is {self.samples} and batch_size {self.batch_size}; give at least 2 and 1"
            )
        if self.max_gmacs < 0 or self.jobs < 0:
            raise ValueError("max_gmacs and jobs must be 0 or more")

    @property
    def table(self) -> Path:
        """Where the cells go."""
        return self.out or ZOO / f"{self.family}.json"

    def sources(self) -> dict[str, Path]:
        """The models' files by the names of the page.

        Raises:
            ValueError: there are none.
            WeightsError: one is not here.
        """
        family = FAMILIES.get(self.family, {})
        wanted = self.models or tuple(family)
        if not wanted:
            raise ValueError(
                f"no family is called {self.family!r} in train.family ({', '.join(FAMILIES)}); "
                "name its models: --models FILE ..."
            )
        found = {}
        for source in wanted:
            try:
                path = locate(source)
            except WeightsError:
                if self.models:
                    raise
                print(f"{source} is not trained yet, and left out", file=sys.stderr)
                continue
            provenance = outline(path).provenance
            if not self.models and not learnt_by(family[source], provenance):
                print(f"{source} is of another recipe than its family, and left out", file=sys.stderr)
                continue
            found[str(provenance.get("name") or path.stem)] = path
        if not found:
            raise ValueError(f"no model of {self.family} is here; python -m train.family {self.family}")
        return found

    def tasks(self, sources: dict[str, Path]) -> list[Task]:
        """All cells that are asked for, cheapest first.

        Raises:
            ValueError: a model cannot be sampled so, not every class is drawn, or no cell is left.
        """
        found = []
        for (name, path), sampler, steps, scale, every in itertools.product(
            sources.items(), self.samplers, self.steps, self.guidance, self.cache_every
        ):
            if (every > 1 and steps == 1) or (scale == 1 and self.guidance_interval):
                continue  # nothing to reuse; nothing to restrict
            wish = Draw(
                samples=self.samples,
                steps=steps,
                guidance_scale=scale,
                sampler=sampler,
                guidance_interval=self.guidance_interval,
                cache_every=every,
                seed=self.seed,
                batch_size=self.batch_size,
            )
            if self.features == "classifier":
                check_samples(self.samples, outline(path).provenance.get("classes", ()))
            found.append(self._task(name, path, wish))
        dear = 1e9 * self.max_gmacs or float("inf")
        tasks = sorted((task for task in found if macs_of_task(task) <= dear), key=macs_of_task)
        if not tasks:
            reason = f"all {len(found)} cells cost more than {self.max_gmacs} GMACs a picture"
            if not found:
                reason = "an interval wants a guidance scale (--guidance 1.5), caching more than one step"
            raise ValueError(f"there is nothing to measure: {reason}")
        return tasks

    def _task(self, name: str, path: Path, wish: Draw) -> Task:
        judging = Judging(**{item.name: getattr(self, item.name) for item in fields(Judging)})
        return Task(name, path, wish.resolved(outline(path).config), judging, self.device, self.work_dir)


def digest(path: Path) -> str:
    """Of a model's config and numbers: what else stands in its file may change, such as its results."""
    return digest_of(load(path))


def is_done(task: Task, family: Family) -> bool:
    """Whether a table has this cell, of these weights and seed, and of at least as many pictures."""
    return any(
        (cell.key, cell.seed) == (task.key, task.wish.seed) and cell.samples >= task.wish.samples
        for cell in family.cells
    )


def check_judge(table: Path, family: Family, task: Task) -> None:
    """Raises ValueError if a table's cells were measured by another reference or features than now."""
    if not family.cells:
        return
    for name, now in judged_by(task).items():
        if (before := family.about.get(name)) != now:
            raise ValueError(
                f"{table}: the {name} of its cells is {before}, and now would be {now}, which cannot be "
                "compared; move the table away, or give another --out"
            )


def opened(sweep: Sweep, sources: dict[str, Path]) -> Family:
    """The table so far, without cells of weights that have changed since."""
    if not sweep.table.exists():
        return Family(name=sweep.family, classes=(), models=(), cells=())
    family = load_family(sweep.table)
    digests = {model.name: model.network for model in family.models}
    changed = {name for name, path in sources.items() if name in digests and digests[name] != digest(path)}
    if not changed:
        return family
    print(
        f"{', '.join(sorted(changed))}: other weights than in {sweep.table}; measured anew", file=sys.stderr
    )
    return replace(
        family,
        models=tuple(model for model in family.models if model.name not in changed),
        cells=tuple(cell for cell in family.cells if cell.model not in changed),
    )


def timed(sweep: Sweep, family: Family, sources: dict[str, Path]) -> Family:
    """The family with all these models in it, each with the seconds of a pass, cheapest first.

    A model that is new is timed, and if that is on another machine than the table names, so are these all.
    """
    known = {model.name: model for model in family.models}
    untimed = {name: path for name, path in sources.items() if sweep.time or name not in known}
    if not untimed:
        return family
    here = machine(find_device(sweep.device))
    if family.about.get("machine", here) != here:
        print(f"timed on {family.about['machine']} before, now all on {here}", file=sys.stderr)
        untimed = {name: locate(name) for name in known if name not in sources} | sources
    times = time_passes(untimed, sweep.device)
    models = known | {name: described(name, untimed[name], time) for name, time in times.items()}
    ordered = tuple(sorted(models.values(), key=lambda model: model.macs))
    return priced(replace(family, models=ordered, about=family.about | {"machine": here}))


def described(name: str, path: Path, time: PassTime) -> MeasuredModel:
    """A model's line in the table."""
    model = outline(path)
    return MeasuredModel(
        name=name,
        preset=str(model.provenance.get("recipe", {}).get("model", name)),
        network=digest(path),
        macs=macs(model.config),
        parameters=sum(parameter.numel() for parameter in model.parameters()),
        images_seen=int(model.provenance.get("images_seen") or 0),
        seconds=time.whole,
        seconds_reused=time.reused,
    )


def priced(family: Family) -> Family:
    """With the seconds of all cells, by those of their models' passes."""
    of = {model.name: model for model in family.models}
    cells = (
        replace(
            cell,
            seconds=(cell.passes - cell.reused) * of[cell.model].seconds
            + cell.reused * of[cell.model].seconds_reused,
        )
        for cell in family.cells
    )
    return replace(family, cells=tuple(cells))


def joined(family: Family, filled: Filled) -> Family:
    """A table with a cell more; in place of the one of fewer pictures, if there was one."""
    others = tuple(cell for cell in family.cells if cell.key != filled.cell.key)
    order = [model.name for model in family.models]

    def place(cell: Cell) -> tuple:  # the same table, in whatever order cells came
        return str(cell.setting), order.index(cell.model), cell.steps

    cells = tuple(sorted((*others, filled.cell), key=place))
    return priced(replace(family, classes=filled.classes, cells=cells, about=family.about | filled.about))


def sweep(wanted: Sweep, command: str = "") -> Family:
    """Measure what is missing, and return the table, which is on disk too.

    command: to be told in the table, for who measures it again.

    Raises:
        ValueError, WeightsError: something cannot be measured, or another process fills the table; what is
            done is kept.
    """
    sources = wanted.sources()
    tasks = wanted.tasks(sources)  # before the timing: what cannot be sampled is said at once
    wanted.table.parent.mkdir(parents=True, exist_ok=True)
    try:
        with FileLock(wanted.table.with_suffix(".lock"), timeout=0):
            family = timed(wanted, opened(wanted, sources), sources)
            missing = [task for task in tasks if not is_done(task, family)]
            if missing:
                check_judge(wanted.table, family, missing[0])
            said = {"commits": commit(), "commands": command}
            lists = {
                name: list(dict.fromkeys([*family.about.get(name, []), new])) for name, new in said.items()
            }
            family = replace(family, about=family.about | lists)
            save_family(wanted.table, family)
            return _filled(wanted, missing, family)
    except Timeout:
        raise ValueError(
            f"{wanted.table} is being filled by another process; wait for it, stop it, or give another --out"
        ) from None


def _filled(wanted: Sweep, missing: list[Task], family: Family) -> Family:
    """The table with these cells, each written as soon as it is measured."""
    total = sum(map(macs_of_task, missing)) * wanted.samples
    with tqdm(total=total, desc=f"{len(missing)} cells", unit="MAC", unit_scale=True) as bar:
        for filled in at_once(fill, missing, wanted.jobs or usual_jobs()):
            family = joined(family, filled)
            save_family(wanted.table, family)
            shutil.rmtree(filled.folder)
            bar.update(filled.cell.macs * filled.cell.samples)
            bar.set_postfix_str(f"{filled.cell.model}, {filled.cell.steps} steps: {filled.cell.frechet:.3f}")
    return family


def main(arguments: list[str]) -> int:
    """Sweep, and say what is in the table. Returns the exit status."""
    return exit_status(lambda: _sweep(arguments), "stopped; the same command continues")


def _sweep(arguments: list[str]) -> None:
    wanted = tyro.cli(Sweep, prog="python -m train.sweep", args=arguments)
    family = sweep(wanted, shlex.join(["python", "-m", "train.sweep", *arguments]))
    print(f"{wanted.table}: {len(family.cells)} cells of {len(family.models)} models")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
