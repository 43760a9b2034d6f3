"""The command line: it parses, calls and prints. Nothing heavy is imported before a command needs it."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperGroup

from r1pipe.errors import Conflict, R1pipeError, UsageError
from r1pipe.output import Output, Table, View

if TYPE_CHECKING:
    from r1pipe.artifact import Artifact
    from r1pipe.recipe import Recipe
    from r1pipe.stage import StageConfig

SUMMARIES = {
    "corpus": "Write the corpus of the tiny world, from which a base model is pretrained.",
    "pretrain": "Pretrain a small base model from random weights.",
    "checkpoint": "Take in an existing model, by path or Hugging Face id, checked and its revision noted.",
    "sft": "Fine-tune a model on prompts with given completions.",
    "rl": "Train a policy by GRPO on tasks whose answers a program can judge.",
    "sample": "Sample completions from a model, judge each, and keep the good ones as data.",
    "curate": "Filter, deduplicate, decontaminate and balance traces, each row that goes with its reason.",
    "distill": "Train a student on a teacher's verified traces.",
    "evaluate": "Score models on the same problems: how often they are right, and how they think.",
}
"""Each stage's SUMMARY once more, for a list of commands that loads none of them; a test keeps them equal."""


class AnswerRule(StrEnum):
    """The rules of `r1pipe.verify.math.JUDGES`, once more for a command line that loads none of them."""

    math = "math"
    number = "number"
    exact = "exact"


class ExportForm(StrEnum):
    """The forms of `r1pipe.curate.exports`, once more for a command line that loads nothing for its help."""

    prompt_completion = "prompt-completion"
    messages = "messages"
    sharegpt = "sharegpt"
    openr1 = "openr1"


class _Commands(TyperGroup):
    """The group of commands; a verb's command is made from its stage's config when it is asked for."""

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """Find the command, and put the real one in the place of a verb's entry in the list."""
        name, command, rest = super().resolve_command(ctx, args)
        if name in SUMMARIES:
            from r1pipe.verbs import make_app

            command = typer.main.get_command(make_app(name, run_verb))
        return name, command, rest


app = typer.Typer(
    cls=_Commands,
    help="From a base language model to a reasoner by the DeepSeek-R1 recipe, and to distilled students.",
    epilog="Start here: [bold]r1pipe run smoke[/bold]\n\nEvery key of a stage: [bold]r1pipe rl --help[/bold]",
    no_args_is_help=True,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
)

Json = Annotated[bool, typer.Option("--json", help="Print one JSON document, for programs.")]
Debug = Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")]
RecipeName = Annotated[
    str, typer.Argument(metavar="RECIPE", help="A recipe's file, or the name of one that comes with r1pipe.")
]
RunFolder = Annotated[Path, typer.Argument(metavar="RUN", help="A run's folder, e.g. runs/tiny-r1.")]
Sets = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="KEY=VALUE",
        help="Set any value of the recipe, e.g. stages.zero.steps=20. May be repeated.",
    ),
]
Out = Annotated[
    Path | None, typer.Option("--out", metavar="DIR", help="The run's folder; runs/<recipe> if not given.")
]
Force = Annotated[
    list[str] | None,
    typer.Option("--force", metavar="STAGE", help="Run this stage again whatever its state."),
]
Gpus = Annotated[
    int | None,
    typer.Option(
        "--gpus", min=1, metavar="N", help="Train on so many processes, one for each GPU of a machine."
    ),
]
Nodes = Annotated[
    int | None,
    typer.Option(
        "--nodes", min=1, metavar="M", help="Train on so many machines, on each of which this command runs."
    ),
]
_RUNS, _STAGES, _LOOK = "Runs", "One stage alone", "Looking"


@contextmanager
def _output(as_json: bool, debug: bool) -> Iterator[Output]:
    """The output of one command: an error a user can meet becomes its message and its exit code."""
    out = Output(json=as_json, debug=debug)
    try:
        yield out
    except R1pipeError as error:
        out.error(error)
        raise typer.Exit(error.exit_code) from None
    finally:
        out.close()


def _version(asked: bool) -> None:
    if asked:
        from r1pipe import __version__

        Output().result(None, f"r1pipe {__version__}")
        raise typer.Exit


@app.callback()
def main(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version and end.")
    ] = False,
) -> None:
    """What stands before every command."""


@app.command(
    rich_help_panel=_RUNS,
    epilog="Example: [bold]r1pipe run tiny-r1 --set stages.zero.steps=20[/bold]\n\n"
    "Then: [bold]r1pipe scores runs/tiny-r1[/bold]",
)
def run(
    recipe: RecipeName,
    out: Out = None,
    overrides: Sets = None,
    jobs: Annotated[
        int | None,
        typer.Option("--jobs", min=1, help="Stages side by side; by default two on a CPU, one on a GPU."),
    ] = None,
    force: Force = None,
    gpus: Gpus = None,
    nodes: Nodes = None,
    dry_run: Annotated[
        bool,
        typer.Option(
            "--dry-run", help="Try all that can be tried without weights; nothing is run or written."
        ),
    ] = False,
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """Run a recipe: every stage that is not up to date. The same command goes on after any stop."""
    with _output(as_json, debug) as output:
        from r1pipe import machine, parallel, pipeline
        from r1pipe.recipe import load_recipe
        from stages import VERBS

        loaded = load_recipe(recipe, VERBS, overrides or (), files_exist=not dry_run)
        if spread := parallel.everywhere(loaded, gpus, nodes):
            loaded = load_recipe(recipe, VERBS, [*spread, *(overrides or ())], files_exist=not dry_run)
        if dry_run:
            _show_dry_run(output, loaded)
            return
        folder = out or Path("runs") / loaded.name
        if nodes is not None and nodes > 1 and machine.node_rank() > 0:
            import signal

            from r1pipe.children import handling
            from r1pipe.train.joining import join

            with handling(signal.SIG_IGN):  # the first machine says when to stop
                joined = join(folder)
            output.result({"run": str(folder), "joined": joined}, f"Trained along in {joined} stages.")
            return
        with _on_machines(folder, nodes):
            made = pipeline.run(
                loaded, folder, jobs=jobs or machine.default_jobs(), sink=output, force=force or ()
            )
        _show_run(output, folder, made)


def _on_machines(folder: Path, nodes: int | None) -> AbstractContextManager[None]:
    """Where several run it, the others are told the end."""
    if nodes is None or nodes == 1:
        return nullcontext()
    from r1pipe.train.joining import telling_the_end

    return telling_the_end(folder)


def _show_dry_run(output: Output, recipe: "Recipe") -> None:
    from r1pipe import dryrun, views

    found = dryrun.dry_run(recipe)
    output.result(found.as_json, *views.dry_run_views(found.as_json))
    if (error := found.findings.error) is None:
        return
    if not output.json:
        raise error
    raise typer.Exit(error.exit_code)


def _show_run(output: Output, folder: Path, made: "dict[str, Artifact]") -> None:
    from r1pipe import views
    from r1pipe.report import RunFiles, write_report

    page = write_report(folder)
    files = RunFiles.open(folder)
    scores = files.scores()
    shown: list[View] = [views.scores_table(scores)] if scores else []
    shown += [*views.problem_views(files.problems()), f"\nReport: {views.relative(page)}"]
    artifacts = {name: str(artifact.path) for name, artifact in made.items()}
    output.result({"run": str(folder), "artifacts": artifacts, "models": scores, "report": str(page)}, *shown)


@app.command(
    rich_help_panel=_RUNS,
    epilog="Example: [bold]r1pipe plan tiny-r1 --set stages.r1.learning_rate=2e-4[/bold]\n\n"
    "Then: [bold]r1pipe run tiny-r1 --set stages.r1.learning_rate=2e-4[/bold]",
)
def plan(
    recipe: RecipeName,
    out: Out = None,
    overrides: Sets = None,
    force: Force = None,
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """Say what a run would do about each stage, and why. Nothing is changed."""
    with _output(as_json, debug) as output:
        from r1pipe import pipeline, views
        from r1pipe.artifact import Store
        from r1pipe.recipe import load_recipe
        from stages import VERBS

        loaded = load_recipe(recipe, VERBS, overrides or ())
        folder = out or Path("runs") / loaded.name
        steps = [step.as_json for step in pipeline.plan(loaded, Store(folder), force=force or ())]
        output.result({"run": str(folder), "stages": steps}, views.plan_table(steps))


@app.command(rich_help_panel=_RUNS, epilog="Example: [bold]r1pipe recipes tiny-r1 > my.yaml[/bold]")
def recipes(
    name: Annotated[str | None, typer.Argument(help="Print this recipe, to be copied and changed.")] = None,
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """List the recipes that come with r1pipe."""
    with _output(as_json, debug) as output:
        from r1pipe import shipped, views

        if name is not None:
            text = shipped.recipe_path(name).read_text(encoding="utf-8")
            output.result({"name": name, "text": text}, text.rstrip("\n"))
            return
        headers = {each: shipped.recipe_header(shipped.recipe_path(each)) for each in shipped.recipe_names()}
        data = [{"name": each, "header": header} for each, header in headers.items()]
        output.result({"recipes": data}, views.recipes_table(headers))


@app.command(rich_help_panel=_RUNS, epilog="Example: [bold]r1pipe tasks logic[/bold]")
def tasks(
    name: Annotated[str | None, typer.Argument(help="Show this task's options and rows.")] = None,
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """List what models can be asked, with an example of each."""
    with _output(as_json, debug) as output:
        from r1pipe import views
        from r1pipe.tasks import listing

        if name is not None:
            found = listing.details(name)
            output.result(found, *views.task_views(found))
            return
        told = listing.listing()
        output.result({"tasks": told}, views.tasks_table(told))


@app.command(rich_help_panel=_LOOK, epilog="Example: [bold]r1pipe scores runs/tiny-r1 --json[/bold]")
def scores(run: RunFolder, as_json: Json = False, debug: Debug = False) -> None:
    """Show the scores of a run's models, of all its evaluations together."""
    with _output(as_json, debug) as output:
        from r1pipe import views
        from r1pipe.report import RunFiles

        files = RunFiles.open(run)
        found, outdated = files.scores(), files.outdated()
        if not found:
            raise UsageError(f"The run {run} has no finished evaluation yet; see `r1pipe status {run}`.")
        parts = [views.scores_table(found), views.sets_table(found), views.outdated_line(outdated)]
        output.result({"models": found, "outdated": outdated}, *(part for part in parts if part is not None))


@app.command(rich_help_panel=_LOOK, epilog="Example: [bold]r1pipe status runs/tiny-r1[/bold]")
def status(run: RunFolder, as_json: Json = False, debug: Debug = False) -> None:
    """Show how far each stage of a run is, what it took, and what another run would do about it."""
    with _output(as_json, debug) as output:
        from r1pipe import inspection, views

        stages = inspection.stage_states(run)
        output.result({"run": str(run), "stages": stages}, views.status_table(stages))


@app.command(
    rich_help_panel=_LOOK,
    epilog="Example: [bold]r1pipe lineage runs/tiny-r1/artifacts/r1/v001-1f3a9c2e[/bold]",
)
def lineage(
    artifact: Annotated[
        Path, typer.Argument(metavar="ARTIFACT", help="The folder of a checkpoint or a dataset.")
    ],
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """Show what an artifact was made from, back to the roots."""
    with _output(as_json, debug) as output:
        from r1pipe import inspection, views
        from r1pipe.artifact import lineage as lineage_of

        tree = lineage_of(inspection.open_artifact(artifact))
        output.result(views.lineage_json(tree), views.lineage_tree(tree))


@app.command(rich_help_panel=_LOOK, epilog="Example: [bold]r1pipe check runs/tiny-r1[/bold]")
def check(run: RunFolder, as_json: Json = False, debug: Debug = False) -> None:
    """Read every byte of a run's artifacts again and compare it with the manifests."""
    with _output(as_json, debug) as output:
        from r1pipe.artifact import Store, verify
        from r1pipe.report import RunFiles

        store = Store(RunFiles.open(run).path)
        stages = sorted(path.name for path in store.root.iterdir()) if store.root.is_dir() else []
        found = {a.name: verify(a, deep=True) for stage in stages for a in store.versions(stage)}
        rows = [[name, "; ".join(problems) or "whole"] for name, problems in found.items()]
        output.result({"artifacts": found}, Table(["artifact", "state"], rows, left=2))
        if any(found.values()):
            raise typer.Exit(1)


@app.command(rich_help_panel=_LOOK, epilog="Example: [bold]r1pipe report runs/tiny-r1[/bold]")
def report(run: RunFolder, as_json: Json = False, debug: Debug = False) -> None:
    """Write the run's report, one self-contained HTML page, from the run's files."""
    with _output(as_json, debug) as output:
        from r1pipe.report import write_report

        path = write_report(run)
        output.result({"report": str(path)}, str(path))


@app.command(
    rich_help_panel=_LOOK, epilog="Example: [bold]r1pipe verify answers.jsonl --out verdicts.jsonl[/bold]"
)
def verify(
    files: Annotated[
        list[Path],
        typer.Argument(
            metavar="FILE...",
            help="Rows {gold, pred} or {prompt, completion, answer}, with `equal` where the truth is known.",
        ),
    ],
    task: Annotated[
        AnswerRule, typer.Option("--task", help="How answers are compared with the right one.")
    ] = AnswerRule.math,
    jobs: Annotated[
        int | None,
        typer.Option("--jobs", min=1, metavar="N", help="Worker processes; all cores if not given."),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option("--out", metavar="FILE", help="Write each row with its verdict to this file."),
    ] = None,
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """Judge the answers in files, and count how often the verdict agrees with the truth."""
    with _output(as_json, debug) as output:
        from r1pipe import jsonl, views
        from r1pipe.verify.files import judge_files

        if out is not None and out.exists():
            raise Conflict(f"'{out}' is there already. Remove it, or give another --out.")
        judged = judge_files(files, task.value, jobs)
        if out is not None:
            jsonl.write_rows(out, judged.rows())
        output.result(judged.summary, views.verdicts_table(judged.summary))


@app.command(
    rich_help_panel=_LOOK,
    epilog="Example: [bold]r1pipe volume --target 800000 --acceptance 0.45 --tokens 6000 --samples 4 "
    "--tokens-per-second 2500 --gpus 64 --price 2[/bold]\n\n"
    "From a sampling: [bold]r1pipe volume runs/tiny-r1/artifacts/traces/v001-* --target 800000[/bold]",
)
def volume(
    made: Annotated[
        list[Path] | None,
        typer.Argument(
            metavar="ARTIFACT...",
            help="What `sample` made, and what `curate` made of it: their numbers fill in what is not given.",
        ),
    ] = None,
    target: Annotated[int, typer.Option("--target", min=1, help="Traces that are to be kept.")] = 800_000,
    acceptance: Annotated[
        float | None, typer.Option("--acceptance", help="Share of the whole completions that are right.")
    ] = None,
    truncated: Annotated[
        float | None, typer.Option("--truncated", help="Share of the completions that are cut off.")
    ] = None,
    loss: Annotated[
        float | None, typer.Option("--loss", help="Share of the right ones that curation drops.")
    ] = None,
    tokens: Annotated[
        float | None, typer.Option("--tokens", help="Tokens of a completion, on average.")
    ] = None,
    tokens_per_second: Annotated[
        float | None, typer.Option("--tokens-per-second", help="Generated by one GPU.")
    ] = None,
    samples: Annotated[
        int | None, typer.Option("--samples", min=1, help="Completions of each prompt.")
    ] = None,
    prompts: Annotated[
        int | None, typer.Option("--prompts", min=1, help="How many prompts there are, in place of samples.")
    ] = None,
    gpus: Annotated[int, typer.Option("--gpus", min=1, help="GPUs that generate side by side.")] = 1,
    price: Annotated[
        float | None, typer.Option("--price", min=0, help="Of a GPU's hour, in dollars.")
    ] = None,
    million_tokens: Annotated[
        float | None, typer.Option("--million-tokens", min=0, help="The price of a million tokens, instead.")
    ] = None,
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """Say what so many traces take: prompts, samples, tokens, GPU-hours, price."""
    with _output(as_json, debug) as output:
        from dataclasses import asdict, replace

        from r1pipe import views
        from r1pipe.artifact import open_dataset
        from r1pipe.measure.volume import rates_of
        from r1pipe.measure.volume import volume as volume_of

        manifests = [open_dataset(each).manifest_or_fail() for each in made or ()]
        given: dict[str, Any] = {
            "acceptance": acceptance,
            "truncated": truncated,
            "loss": loss,
            "tokens": tokens,
            "tokens_per_second": tokens_per_second,
        }
        rates = replace(rates_of(manifests), **{key: each for key, each in given.items() if each is not None})
        found = volume_of(
            target,
            rates,
            samples=samples,
            prompts=prompts,
            gpus=gpus,
            gpu_hour=price,
            million_tokens=million_tokens,
        )
        data = {"rates": asdict(rates), **found.as_json, "gpus": gpus}
        output.result(data, views.volume_table(data))


@app.command(
    rich_help_panel=_LOOK,
    epilog="Example: [bold]r1pipe export traces --as messages --out train.jsonl[/bold]\n\n"
    'Then: [bold]datasets.load_dataset("json", data_files="train.jsonl")[/bold]',
)
def export(
    dataset: Annotated[
        Path, typer.Argument(metavar="DATASET", help="The folder or file of a dataset of traces.")
    ],
    form: Annotated[
        ExportForm, typer.Option("--as", help="TRL's two forms, ShareGPT's, or OpenR1's row per problem.")
    ],
    out: Annotated[Path, typer.Option("--out", metavar="FILE", help="The JSON Lines file to write.")],
    with_rejects: Annotated[
        bool, typer.Option("--with-rejects", help="Take in what was rejected, too, with its verdicts.")
    ] = False,
    validation: Annotated[
        bool, typer.Option("--validation", help="Write the rows that `curate` split off, not the others.")
    ] = False,
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """Write traces in the form that another tool reads."""
    with _output(as_json, debug) as output:
        from r1pipe.curate import exports

        if out.exists():
            raise Conflict(f"'{out}' is there already. Remove it, or give another --out.")
        rows = exports.export(dataset, form.value, out, rejects=with_rejects, validation=validation)
        output.result({"out": str(out), "form": form.value, "rows": rows}, f"{rows} rows: {out}")


@app.command(rich_help_panel=_LOOK, epilog="Example: [bold]r1pipe schema > trace.schema.json[/bold]")
def schema(debug: Debug = False) -> None:
    """Print the JSON Schema of a trace, one row of what `sample` makes, with what each column means."""
    with _output(True, debug) as output:
        from r1pipe.curate import traces

        output.result(traces.schema())


def run_verb(
    verb: str, config: "Callable[[], StageConfig]", out: Path, seed: int, as_json: bool, debug: bool
) -> None:
    """Run one stage alone and show what it made."""
    with _output(as_json, debug) as output:
        from r1pipe import pipeline, views

        made = pipeline.run_alone(verb, config(), out, seed=seed, sink=output)
        metrics = made.manifest.metrics if made.manifest else {}
        data = {"artifact": str(made.path), "fingerprint": made.fingerprint, "metrics": metrics}
        output.result(data, *views.outcome_views(made))


def _entry(verb: str) -> None:
    """List a verb among the commands; `_Commands` puts the real command in its place."""

    @app.command(verb, help=SUMMARIES[verb], rich_help_panel=_STAGES)
    def listed() -> None:
        raise AssertionError(f"the command of {verb} was not made")


for _verb in SUMMARIES:
    _entry(_verb)
