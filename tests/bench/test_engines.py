"""The benchmark of engines: that its peers are asked for the same thing, and what it makes of their times."""

import json
from contextlib import ExitStack
from pathlib import Path

import pytest

from bench import engines
from r1pipe.rollout import Rollout, Sampling
from tests.tiny_model import write_tiny

NAMES = ("generate", "whole", "transformers")


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a random policy as `zero`."""
    folder = tmp_path_factory.mktemp("run")
    write_tiny(folder / "zero")
    return folder


@pytest.mark.parametrize("name", [*NAMES, pytest.param("batching", marks=pytest.mark.slow)])
def test_peers_give_what_they_drew(run: Path, name: str) -> None:
    """A completion for each prompt, cut at its EOS, with the log-probabilities of a fresh pass."""
    with ExitStack() as stack:
        opened = engines.Opened(run / "zero", 4, [name], stack)
        prompts = engines.questions(opened.tokenizer, 4)
        rollouts = opened.engines[name](prompts, Sampling(12, logprobs=True), [3, 1, 4, 1])
        found = engines.mismatch(opened.model, prompts, rollouts)
    assert len(rollouts) == 4 and prompts[0] == prompts[3]
    assert found["tokens"] == sum(len(each.token_ids) for each in rollouts)
    assert found["largest"] < 1e-4
    for rollout in rollouts:
        ended = rollout.token_ids[-1] == opened.eos_id
        assert (rollout.finish == "stop") is ended and opened.eos_id not in rollout.token_ids[:-1]
        assert ended or len(rollout.token_ids) == 12


def test_a_mismatch_is_seen(run: Path) -> None:
    """An engine that is off by a tenth in every token has that as mean and as largest difference."""
    with ExitStack() as stack:
        opened = engines.Opened(run / "zero", 2, ["transformers"], stack)
        prompts = engines.questions(opened.tokenizer, 2)
        rollouts = opened.engines["transformers"](prompts, Sampling(8, logprobs=True), [5, 6])
        off = [
            Rollout(each.token_ids, each.finish, [x + 0.1 for x in each.logprobs or ()]) for each in rollouts
        ]
        found = engines.mismatch(opened.model, prompts, off)
    assert found["mean"] == pytest.approx(0.1, abs=1e-4) and found["largest"] == pytest.approx(0.1, abs=1e-4)


def test_what_is_not_installed_is_left_out(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Both ways to vLLM are named, and the others are there."""
    monkeypatch.setattr(engines, "find_spec", lambda name: None)
    with ExitStack() as stack:
        opened = engines.Opened(run / "zero", 2, list(engines.TOLD), stack)
    assert opened.left_out == {"vllm": "vLLM is not installed", "vllm-server": "vLLM is not installed"}
    assert set(opened.engines) == {"generate", "batching", "whole", "transformers"}


def test_medians() -> None:
    """Of 100 tokens in 1, 2 and 10 seconds; a processor's clock that has not moved counts as a hundredth."""
    measured = [{"tokens": 100, "seconds": each, "cpu_seconds": 0.0} for each in (1.0, 2.0, 10.0)]
    assert engines.pace(measured, 4) == {
        "tokens_per_second": 50.0,
        "tokens_per_cpu_second": 10_000.0,
        "length": 25.0,
    }


def test_all_get_the_same_seeds_in_a_round() -> None:
    """Two engines take turns, and what a round draws with is no other round's."""
    seen: dict[str, list[tuple[int, ...]]] = {"one": [], "other": []}

    def engine(name: str) -> engines.Generate:
        def generate(prompts: engines.Prompts, sampling: Sampling, seeds: list[int]) -> list[Rollout]:
            seen[name].append(tuple(seeds))
            return [Rollout([1], "stop") for _ in prompts]

        return generate  # type: ignore[return-value]

    engines.in_turn({name: engine(name) for name in seen}, [[1], [2]], Sampling(4), rounds=2)
    assert seen["one"] == seen["other"] and len(set(seen["one"])) == 2


def test_the_figures_and_their_page(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Every engine has its pace at every size and its mismatch; nothing of this machine's folders is told."""
    out = tmp_path / "engines.json"
    options = ["--run", str(run), "--out", str(out), "--quick", "--engines", *NAMES]
    assert engines.main(options) == 0
    result = json.loads(out.read_text())
    assert {size: set(each) for size, each in result["sizes"].items()} == {"2": set(NAMES), "4": set(NAMES)}
    assert set(result["mismatch"]) == set(NAMES) and set(result["batches"]) == {"2"}
    printed = capsys.readouterr().out
    assert printed == out.with_suffix(".md").read_text()
    assert "- `transformers`: r1pipe's loop with its lean pass (`engine: transformers`)." in printed
    assert str(run) not in out.read_text() + printed
