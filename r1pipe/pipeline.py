"""The tree of stages: what has to run, in which order, side by side where it can, and on again after a stop.

This process plans, schedules and tells; it never imports torch. Each stage runs in a child that is forked
from a server which has loaded the heavy libraries once (see `children` and `worker`). Whatever dies, and
whenever: what was published is whole, and the same command goes on from there.
"""

import os
import time
from collections.abc import Collection, Sequence
from multiprocessing import connection
from pathlib import Path
from types import FrameType
from typing import Any, Final

from r1pipe import errors, jsonl
from r1pipe.artifact import Artifact, Store, verify
from r1pipe.children import Child, fork_server, handling
from r1pipe.errors import Conflict, Interrupted, R1pipeError, RunFailed, UsageError
from r1pipe.manifest import load_manifest
from r1pipe.plan import Planner, Step
from r1pipe.recipe import Recipe, StageSpec
from r1pipe.reporting import death
from r1pipe.run import RunFolder
from r1pipe.stage import Findings, Sink, StageConfig, Verbs, references
from r1pipe.worker import StageJob, run_checks, run_stage
from stages import VERBS

HEAVY: Final = ("torch", "transformers", "datasets", "trl.trainer.sft_trainer", "trl.trainer.grpo_trainer")
"""What the children share, loaded once, where any stage needs it."""


class Nobody:
    """A `Sink` for those who want the result and nothing else."""

    def event(self, kind: str, stage: str, **fields: Any) -> None:
        """Do nothing."""


def plan(recipe: Recipe, store: Store, *, force: Collection[str] = (), verbs: Verbs = VERBS) -> list[Step]:
    """Return what a run would do about every stage, parents first, and why; nothing is changed.

    Raises `UsageError` when something from outside cannot be used, or `force` names an unknown stage.
    """
    return Planner(recipe, store, verbs, force).plan()


def run(
    recipe: Recipe,
    run_dir: Path | str,
    *,
    jobs: int = 1,
    sink: Sink | None = None,
    force: Collection[str] = (),
    verbs: Verbs = VERBS,
    preload: Sequence[str] = HEAVY,
) -> dict[str, Artifact]:
    """Run every stage that is not up to date; return the artifact of each stage.

    Args:
        recipe: what to run.
        run_dir: the run's folder; what it holds already is used.
        jobs: how many stages may run side by side.
        sink: told of everything that happens.
        force: stages to run again whatever their state.
        verbs: the stages there are.
        preload: modules that the children share, if any of the stages that run is not light.

    Raises:
        UsageError: an input or an option cannot be used; nothing was run.
        EnvironmentUnfit: this machine lacks what a stage needs; nothing was run.
        Conflict: another process writes in this run.
        RunFailed: stages failed; those that do not depend on them were finished first. Where all of them met
            an error of another kind, unusable data say, that kind is raised.
        Interrupted: the user asked to stop.
    """
    folder = RunFolder(run_dir)
    with folder.writing():
        planner = Planner(recipe, folder.store, verbs, force)
        steps = planner.plan()
        folder.describe(recipe, jobs)
        tell = _Teller(folder, sink or Nobody())
        tell("run_started", "", run=str(folder.path), steps=[step.as_json for step in steps])
        began, exit_code = time.monotonic(), 1
        try:
            due = [step.stage for step in steps if step.action != "up to date"]
            needed = preload if any(_heavy(verbs, recipe.stages[name].uses) for name in due) else ()
            if due and (unfit := check_options(recipe, due, verbs=verbs, preload=needed).error):
                raise unfit
            artifacts = _Scheduler(recipe, folder, planner, verbs, tell, jobs).run()
            exit_code = 0
        except R1pipeError as error:
            exit_code = error.exit_code
            raise
        except KeyboardInterrupt as error:
            exit_code = Interrupted.exit_code
            raise Interrupted("Stopped before any stage was running.") from error
        finally:
            tell("run_finished", "", seconds=round(time.monotonic() - began, 3), exit_code=exit_code)
    return artifacts


def _heavy(verbs: Verbs, verb: str) -> bool:
    """Whether a verb's stage computes with what `HEAVY` loads."""
    return not getattr(verbs.module(verb), "LIGHT", False)


def check_options(
    recipe: Recipe, stages: Sequence[str], *, verbs: Verbs = VERBS, preload: Sequence[str] = HEAVY
) -> Findings:
    """Let these stages look at their own options, in a child; return all that they found, with its place."""
    specs = [recipe.stages[stage] for stage in stages]
    checks = {
        spec.name: (verbs.modules[spec.uses], spec.config)
        for spec in specs
        if hasattr(verbs.module(spec.uses), "check")
    }
    fork_server(preload)
    if not checks:
        return Findings()
    child = Child.start(run_checks, checks, "check")
    try:
        while not child.over:
            connection.wait(child.signs)
            list(child.messages())
    finally:
        child.close()
    if child.end.get("what") != "checked":
        raise RunFailed(f"The options could not be checked: {child.end.get('error', 'the check died')}.")
    found = Findings()
    for stage, told in child.end["findings"].items():
        found.wrong.extend(_placed(recipe, stage, said) for said in told["wrong"])
        found.lacking.extend(_placed(recipe, stage, said) for said in told["lacking"])
    return found


def _placed(recipe: Recipe, stage: str, said: str) -> str:
    """What a stage's check says, with the place of the key that it begins with."""
    return f"{recipe.place(stage, said.split()[0].rstrip(':'))}: stages.{stage}.{said}"


def run_alone(
    verb: str,
    config: StageConfig,
    out: Path | str,
    *,
    seed: int = 0,
    sink: Sink | None = None,
    verbs: Verbs = VERBS,
    preload: Sequence[str] = HEAVY,
) -> Artifact:
    """Run one stage on paths and hub ids and put what it makes at `out`, which becomes the artifact's folder.

    It is a run of one stage in `<out>.run`: a second call goes on after a stop, or finds nothing to do.
    Raises what `run` raises; `Conflict` also when `out` holds something else, or
    was changed since it was made.
    """
    out = Path(out)
    if out.name in ("", ".."):
        raise UsageError(f"'{out}' is no folder of the artifact's own; name one, as in --out try/base.")
    for reference in references(config):
        if reference.value == verb:
            raise UsageError(f"'{reference.role}': write the path as './{verb}'.")
    recipe = Recipe(verb, seed, {verb: StageSpec(verb, verb, config)})
    run_dir = out.with_name(f"{out.name}.run")
    (step,) = plan(recipe, Store(run_dir), verbs=verbs)
    if out.exists() and any(out.iterdir() if out.is_dir() else [out]):
        manifest = load_manifest(out) if out.is_dir() else None
        if manifest is None or manifest.fingerprint != step.fingerprint:
            raise Conflict(
                f"'{out}' is there already and holds something else. Remove it, or give another --out."
            )
        artifact = Artifact(out, manifest.kind, manifest)
        if problems := verify(artifact, deep=False):
            wrong = "; ".join(problems)
            raise Conflict(f"'{out}' was changed since it was made: {wrong}. Remove it and run again.")
        (sink or Nobody()).event("stage_reused", verb, artifact=str(out), reasons=[])
        return artifact
    made = run(recipe, run_dir, sink=sink, verbs=verbs, preload=preload)[verb]
    with jsonl.writing(out):
        os.replace(made.path, out)
        jsonl.fsync(out.parent)
    return Artifact(out, made.kind, made.manifest)


class _Teller:
    """Tells the run's event file and the user's sink."""

    def __init__(self, folder: RunFolder, sink: Sink) -> None:
        self._folder = folder
        self._sink = sink

    def __call__(self, kind: str, stage: str, **fields: Any) -> None:
        self._folder.tell(kind, stage, fields)
        self._sink.event(kind, stage, **fields)


class _Scheduler:
    """Runs the stages of a plan; of those that are ready, first the one with the longest chain behind it."""

    def __init__(
        self, recipe: Recipe, folder: RunFolder, planner: Planner, verbs: Verbs, tell: _Teller, jobs: int
    ) -> None:
        self._recipe = recipe
        self._folder = folder
        self._planner = planner
        self._verbs = verbs
        self._tell = tell
        self._jobs = max(1, jobs)
        self._left = sorted(recipe.order, key=lambda name: -_chain(recipe, name))
        self._running: dict[str, Child] = {}
        self._artifacts: dict[str, Artifact] = {}
        self._failed: dict[str, R1pipeError] = {}
        self._signals = 0

    def run(self) -> dict[str, Artifact]:
        """Run until nothing more can."""
        with handling(self._on_signal):
            try:
                self._start()
                while self._running:
                    if self._listen():
                        self._start()
            finally:
                for child in self._running.values():  # there are some only when something broke in here
                    child.close()
        if self._signals:
            raise Interrupted("Stopped. What was made so far is kept; the same command goes on from there.")
        if self._failed:
            self._tell_skipped()
            raise self._failure()
        return self._artifacts

    def _start(self) -> None:
        """Take up what is ready, as far as there is room; parents come before children in this order."""
        for name in list(self._left):
            ready = all(parent in self._artifacts for parent in self._recipe.parents(name))
            if not ready or self._signals:
                continue
            step = self._planner.look(name)
            if step.artifact is None and len(self._running) >= self._jobs:
                continue
            self._left.remove(name)
            if step.artifact is None:
                self._start_child(name, step)
            else:
                self._artifacts[name] = step.artifact
                self._folder.reused(name, step.artifact)
                self._tell("stage_reused", name, artifact=str(step.artifact.path), reasons=[])

    def _start_child(self, name: str, step: Step) -> None:
        anew = self._folder.holds_other_work(name, step.fingerprint)
        resumed = self._folder.begin(name, step.fingerprint)
        told = {"verb": step.verb, "fingerprint": step.fingerprint, "reasons": list(step.reasons)}
        self._tell("stage_started", name, resumed=resumed, **told)
        if anew and not resumed:
            text = "What was begun is of other options or inputs; it is put aside, and this begins anew."
            self._tell("say", name, text=text)
        module, spec = self._verbs.modules[step.verb], self._recipe.stages[name]
        job = StageJob(module, spec, step, self._recipe.seed, self._folder.path)
        child = self._running[name] = Child.start(run_stage, job, name)
        if self._signals:  # it came while the child was being started
            child.stop()

    def _listen(self) -> bool:
        """Wait for a child's next word, or its death, and pass it on; return whether one has ended."""
        ended = False
        connection.wait([sign for child in self._running.values() for sign in child.signs])
        for name, child in list(self._running.items()):
            for message in child.messages():
                self._tell(message["kind"], name, **message["fields"])
            if child.over:
                child.close()
                del self._running[name]
                self._ended(name, child)
                ended = True
        return ended

    def _ended(self, name: str, child: Child) -> None:
        what = child.end.get("what")
        if what == "done":
            self._published(name, Path(child.end["path"]))
        elif what == "stopped" or self._signals > 1:
            self._signals = max(1, self._signals)
            self._tell("stage_stopped", name)
        else:
            self._broke(name, child)

    def _published(self, name: str, path: Path) -> None:
        manifest = load_manifest(path)
        assert manifest is not None, f"{path} was published just now"
        artifact = self._artifacts[name] = Artifact(path, manifest.kind, manifest)
        self._planner.made(name, artifact)
        self._folder.finished(name, artifact)
        told = {"metrics": manifest.metrics, "cost": manifest.cost.model_dump()}
        self._tell("stage_finished", name, artifact=str(path), **told)

    def _broke(self, name: str, child: Child) -> None:
        log = self._folder.log(name)
        error = child.end.get("error") or f"its process {death(child.process.exitcode)}"
        self._tell("stage_failed", name, error=error, log=str(log))
        kinds = {kind.exit_code: kind for kind in (UsageError, errors.EnvironmentUnfit, Conflict)}
        kind = kinds.get(child.end.get("exit_code", 1), RunFailed)
        self._failed[name] = kind(f"Stage '{name}' failed: {error.rstrip('.')}. Its log is {log}")

    def _failure(self) -> R1pipeError:
        """Return one error for all the stages that failed."""
        kinds = {type(error) for error in self._failed.values()}
        kind = kinds.pop() if len(kinds) == 1 else RunFailed
        way_out = "What was finished is kept: once this is put right, the same command goes on from there."
        return kind("\n".join([*(str(error) for error in self._failed.values()), way_out]))

    def _tell_skipped(self) -> None:
        for name in self._left:
            missing = [each for each in self._recipe.parents(name) if each not in self._artifacts]
            self._tell("stage_skipped", name, because=f"'{missing[0]}' is missing")

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        """Ctrl-C: the first time the stages save and stop, the second time they are ended."""
        self._signals += 1
        for child in list(self._running.values()):
            if self._signals == 1:
                child.stop()
            else:
                child.kill()


def _chain(recipe: Recipe, name: str) -> int:
    """Return how many stages the longest chain that hangs on this one has."""
    return max((1 + _chain(recipe, child) for child in recipe.children(name)), default=0)
