"""A teacher behind a chat server: what it says becomes completions, and half an answer is asked for again.

The server is a real one on the loopback, with OpenAI's chat completions and nothing of vLLM's.
"""

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from r1pipe import jsonl
from r1pipe.curate.traces import validated
from r1pipe.errors import RunFailed, UsageError
from r1pipe.rollout import endpoint
from r1pipe.rollout.endpoint import HalfAnswer
from r1pipe.rollout.teacher import read_answer
from r1pipe.stage import Outcome
from stages import sample
from tests.loopback_server import running
from tests.stages.test_sample import ANYTHING, SMALL, published, solve
from tests.tiny_model import Ear, inputs, workplace

KEY = "sk-very-secret-8471"
Message = dict[str, Any]


class Teacher(ThreadingHTTPServer):
    """Answers as it is told to; `script` gives the message, the reason of its end, and the usage."""

    daemon_threads = True

    def __init__(self, script: Callable[[Message, int], tuple[int, Any]]) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.script = script
        self.asked: list[Message] = []
        self.keys: list[str | None] = []
        self.lock = threading.Lock()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/v1"


class _Handler(BaseHTTPRequestHandler):
    server: Teacher

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        assert self.path == "/v1/chat/completions"
        with self.server.lock:
            self.server.asked.append(body)
            self.server.keys.append(self.headers["Authorization"])
            number = len(self.server.asked)
        status, answer = self.server.script(body, number)
        text = answer if isinstance(answer, bytes) else json.dumps(answer).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        with suppress(OSError):  # the other end has given up
            self.wfile.write(text)

    def log_message(self, *_: Any) -> None:
        """Quiet."""


@contextmanager
def teaching(script: Callable[[Message, int], tuple[int, Any]]) -> Iterator[Teacher]:
    with running(Teacher(script)) as server:
        yield server


def reply(message: Message, finish: str = "stop", usage: Any = None) -> tuple[int, Any]:
    return 200, {"choices": [{"message": message, "finish_reason": finish}], "usage": usage}


def right(body: Message, number: int = 0) -> tuple[int, Any]:
    """A right answer, the thinking apart; it took as many tokens as it has words."""
    thinking, _, text = solve(body["messages"][-1]["content"]).partition(" </think> ")
    usage = {"prompt_tokens": 100, "completion_tokens": len(thinking.split()) + 7}
    return reply({"content": text, "reasoning_content": thinking}, usage=usage)


def run(tiny: Path, folder: Path, server: Teacher, **changes: Any) -> tuple[Outcome, Ear]:
    work, ear = workplace(folder)
    teacher = {"url": server.url, "model": "r1", "concurrency": 4, **changes.pop("teacher", {})}
    config = sample.Config.model_validate({**SMALL, "teacher": teacher, **changes})
    return sample.run(config, inputs(model=tiny), work), ear


@pytest.fixture(autouse=True)
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(endpoint, "_FIRST_WAIT", 0.001)


def test_a_teachers_answers_are_traces(tiny: Path, tmp_path: Path) -> None:
    """Asked in messages, with the options of the sampling; the completions go on from the student's prompts,
    which open the thinking. Its tokens are counted as it tells them, and paid for."""
    price = {"million_tokens": 1e6, "million_prompt_tokens": 1e3}
    options = {"system": "Think.", "options": {"reasoning_effort": "high", "top_p": None}}
    with teaching(right) as server:
        outcome, ear = run(
            tiny, tmp_path / "one", server, samples=2, price=price, temperature=0.6, teacher=options
        )
    assert len(server.asked) == 8
    body = server.asked[0]
    assert [message["role"] for message in body["messages"]] == ["system", "user"]
    told = {key: value for key, value in body.items() if key not in ("messages", "seed")}
    assert told == {"model": "r1", "max_tokens": 32, "temperature": 0.6, "reasoning_effort": "high"}
    assert len({each["seed"] for each in server.asked}) == 8
    rows = [validated(row) for row in jsonl.iter_rows(outcome.path)]
    assert (outcome.metrics["kept"], outcome.metrics["rejected"]) == (4, {"duplicate": 4})
    for row in rows:
        assert row["prompt"].endswith("<think>")
        assert row["thinking"] == solve(row["question"]).partition(" </think> ")[0]
        assert row["tokens"] == len(row["thinking"].split()) + 7
        assert (row["model"], row["engine"]) == ("r1", "teacher")
    assert outcome.cost["usd"] == pytest.approx(outcome.metrics["tokens"] + 8 * 100 / 1e3)
    assert ear.said == f"Teacher: 'r1' on {server.url.removesuffix('/v1')}."


def test_the_traces_of_a_teacher_asked_otherwise_are_others(tiny: Path, tmp_path: Path) -> None:
    """Its name, its system's words and the further keys tell traces apart; its address does not."""
    asked: list[dict[str, Any]] = [
        {},
        {"model": "r2"},
        {"system": "Be brief."},
        {"options": {"reasoning_effort": "low"}},
    ]
    ids = []
    for number, teacher in enumerate([*asked, {}]):  # the last server is another one, asked as the first is
        with teaching(right) as server:
            outcome, _ = run(tiny, tmp_path / str(number), server, teacher=teacher)
        ids.append(frozenset(row["trace_id"] for row in jsonl.iter_rows(outcome.path)))
    assert len(set(ids)) == len(asked) and ids[-1] == ids[0]


def refusing(*numbers: int, status: int = 400) -> Callable[[Message, int], tuple[int, Any]]:
    """Refuses the so manyeth requests."""
    return lambda body, number: (status, b"it is against our policy") if number in numbers else right(body)


FREE = {"correct": False, "untruncated": False, "well_formed": False, "single_language": 0}


@pytest.mark.parametrize(
    ("numbers", "status", "keep"), [((1,), 400, {}), ((3,), 413, {}), ((1, 2), 422, {}), ((2,), 400, FREE)]
)
def test_a_question_that_is_refused_is_undecided(
    tiny: Path, tmp_path: Path, numbers: tuple[int, ...], status: int, keep: Any
) -> None:
    """It is asked once, is told with what the server said, and costs nothing; the others are answered. It is
    not kept whatever else is, and no judge is asked again."""
    price = {"million_tokens": 1e6, "million_prompt_tokens": 1e3}
    with teaching(refusing(*numbers, status=status)) as server:
        outcome, ear = run(tiny, tmp_path / "one", server, teacher={"concurrency": 1}, keep=keep, price=price)
        assert len(server.asked) == 4
    count, kept = len(numbers), 4 - len(numbers)
    assert (outcome.metrics["kept"], outcome.metrics["undecided"]) == (kept, 0)
    assert outcome.metrics["rejected"] == {f"refused ({status})": count}
    assert outcome.metrics["judged_again"] == 0
    rejects = list(jsonl.iter_rows(outcome.path / "rejects.jsonl"))
    assert len(rejects) == count
    for row in rejects:
        validated({name: value for name, value in row.items() if name != "rejected"})
        assert row["reason"] == f"refused ({status}): it is against our policy"
        told = (row["verdict"], row["completion"], row["tokens"], row["finish_reason"])
        assert told == ("undecided", "", 0, "refused")
    assert f"which stay undecided: refused ({status}): it is against our policy." in ear.said
    assert outcome.cost["usd"] == pytest.approx(outcome.metrics["tokens"] + kept * 100 / 1e3)


@pytest.mark.parametrize(
    ("message", "finish", "reason"),
    [
        ({"content": None, "refusal": "I will not."}, "stop", "refused (its own words): I will not."),
        ({"content": None}, "content_filter", "refused (content_filter)"),
    ],
)
def test_a_refusal_that_comes_as_an_answer(message: Message, finish: str, reason: str) -> None:
    """As some servers and their filters have it; what it took is counted where the server tells."""
    answer: dict[str, Any] = {"choices": [{"message": message, "finish_reason": finish}]}
    said = read_answer(answer)
    assert (said.refused, said.text, said.tokens, said.prompt_tokens) == (reason, "", 0, 0)
    said = read_answer(answer | {"usage": {"prompt_tokens": 90, "completion_tokens": 4}})
    assert (said.refused, said.text, said.tokens, said.prompt_tokens) == (reason, "", 4, 90)


def test_a_refusal_is_kept_over_a_kill(tiny: Path, tmp_path: Path) -> None:
    """The server dies in the second batch; what it refused in the first is not asked again, and all is as if
    nothing had happened."""

    def dies(body: Message, number: int) -> tuple[int, Any]:
        return (503, b"overloaded") if number > 5 else refusing(2)(body, number)

    fields: dict[str, Any] = {"samples": 2, "batch": 4, "teacher": {"retries": 0, "concurrency": 1}}
    with teaching(dies) as server:
        with pytest.raises(RunFailed, match="503 overloaded"):
            run(tiny, tmp_path / "one", server, **fields)
        server.script = right
        server.asked.clear()
        outcome, _ = run(tiny, tmp_path / "one", server, **fields)
        assert len(server.asked) == 3
    with teaching(refusing(2)) as server:
        run(tiny, tmp_path / "whole", server, **fields)
    assert published(tmp_path / "one") == published(tmp_path / "whole")
    assert outcome.metrics["rejected"]["refused (400)"] == 1


def test_a_teacher_that_refuses_everything_ends_the_stage(tiny: Path, tmp_path: Path) -> None:
    """Also what nobody would refuse, in a later batch too: then nothing is taken for refused, and all of it
    is asked once more when the server was mended. That only all of these questions are refused is found out
    by one more."""

    def from_the_second_batch_on(body: Message, number: int) -> tuple[int, Any]:
        return right(body) if number <= 4 else (400, {"error": "context too long"})

    fields: dict[str, Any] = {"samples": 2, "batch": 4, "teacher": {"concurrency": 1}}
    with teaching(from_the_second_batch_on) as server:
        with pytest.raises(RunFailed, match=r"400 .*context too long.*It refuses the request itself"):
            run(tiny, tmp_path / "one", server, **fields)
        assert len(server.asked) == 9 and "1 + 1" in str(server.asked[-1])
        server.script = right
        outcome, _ = run(tiny, tmp_path / "one", server, **fields)
    assert (outcome.metrics["generated"], outcome.metrics["rejected"]) == (8, {"duplicate": 4})

    def of_these_questions(body: Message, number: int) -> tuple[int, Any]:
        return (400, b"no") if number < 5 else reply({"content": "2"})

    with teaching(of_these_questions) as server:
        with pytest.raises(RunFailed, match=r"None of 4 completions was kept: 4 refused \(400\)"):
            run(tiny, tmp_path / "two", server)
        assert len(server.asked) == 5


def test_what_was_answered_is_not_asked_again(tiny: Path, tmp_path: Path) -> None:
    """The teacher dies after five of eight: those are in the journal, and only the others are asked."""

    def dies(body: Message, number: int) -> tuple[int, Any]:
        return right(body) if number <= 5 else (503, b"overloaded")

    fields = {"samples": 2, "teacher": {"retries": 1, "concurrency": 1}}
    with teaching(dies) as server:
        with pytest.raises(RunFailed, match=r"503 overloaded.*Run the same command to go on"):
            run(tiny, tmp_path / "one", server, **fields)
        first = [each["seed"] for each in server.asked[:5]]
        server.script = right
        server.asked.clear()
        run(tiny, tmp_path / "one", server, **fields)
        assert len(server.asked) == 3 and not {each["seed"] for each in server.asked} & set(first)
    with teaching(right) as server:
        run(tiny, tmp_path / "whole", server, **fields)
    assert published(tmp_path / "one") == published(tmp_path / "whole")


@pytest.mark.parametrize(
    "spoilt",
    [
        (429, b"slow down"),
        (500, b""),
        (200, b'{"choices": [{"mess'),
        (200, {"choices": []}),
        (200, {"choices": [{"message": {"content": "no end"}}]}),
        (200, {"choices": [{"message": {"content": None}, "finish_reason": "stop"}]}),
    ],
)
def test_half_an_answer_is_asked_for_again(tiny: Path, tmp_path: Path, spoilt: tuple[int, Any]) -> None:
    """Every second time: all questions are answered in the end, each once."""
    with teaching(lambda body, number: spoilt if number % 2 else right(body)) as server:
        outcome, _ = run(tiny, tmp_path / "one", server, teacher={"concurrency": 1})
    assert (outcome.metrics["generated"], outcome.metrics["kept"], len(server.asked)) == (4, 4, 8)


def test_a_teacher_that_says_nothing_has_a_deadline(tiny: Path, tmp_path: Path) -> None:
    """It is given up after its time, twice, and the message says what was waited for and what to change."""
    go_on = threading.Event()

    def waits(body: Message, number: int) -> tuple[int, Any]:
        go_on.wait(30)
        return right(body)

    with teaching(waits) as server:
        with pytest.raises(RunFailed, match=r"2 times in .*no whole answer in 0\.05 s.*teacher\.timeout"):
            run(tiny, tmp_path / "one", server, teacher={"timeout": 0.05, "retries": 1})
        go_on.set()


def test_the_key_is_in_no_file(tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is sent, and stands in nothing that is written or said: not where all goes well, nor where the
    server throws it back."""
    monkeypatch.setenv("TEACHER_KEY", KEY)
    fields = {"teacher": {"api_key_env": "TEACHER_KEY", "retries": 0}}
    with teaching(right) as server:
        _, ear = run(tiny, tmp_path / "one", server, **fields)
        assert set(server.keys) == {f"Bearer {KEY}"}
        server.script = lambda body, number: (401, f"unknown key {KEY}".encode())
        with pytest.raises(UsageError, match=r"unknown key \*\*\*.*TEACHER_KEY") as caught:
            run(tiny, tmp_path / "two", server, **fields)
    assert KEY not in str(caught.value) and KEY not in str(ear.events)
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert len(files) > 4
    assert [path for path in files if KEY.encode() in path.read_bytes()] == []


@pytest.mark.parametrize(
    ("message", "finish", "opened", "text"),
    [
        ({"content": "A", "reasoning_content": "t"}, "stop", True, "t\n</think>\n\nA"),
        ({"content": "A", "reasoning": "t\n"}, "stop", False, "<think>\nt\n</think>\n\nA"),
        ({"content": "<think>\nt</think>A"}, "stop", True, "t</think>A"),
        ({"content": " <think>t</think>A"}, "stop", False, "<think>t</think>A"),
        ({"content": "t</think>A", "reasoning_content": ""}, "stop", True, "t</think>A"),
        ({"content": "A"}, "stop", False, "A"),
        ({"content": None, "reasoning_content": "t"}, "length", True, "t"),
        ({"content": "", "reasoning_content": "t"}, "length", False, "<think>\nt"),
        ({"content": "A", "reasoning_content": "t"}, "content_filter", True, "t\n</think>\n\nA"),
    ],
)
def test_the_thinking_from_wherever_it_stands(message: Message, finish: str, opened: bool, text: str) -> None:
    """Apart or in the text, whole or cut off, for prompts that open it and for those that do not."""
    said = read_answer(reply(message, finish, {"completion_tokens": 3, "prompt_tokens": "four"})[1])
    assert said.completion(opened) == text
    assert (said.truncated, said.tokens, said.prompt_tokens) == (finish != "stop", 3, None)


def test_two_answers_are_no_answer() -> None:
    """One was asked for."""
    choice = {"message": {"content": "A"}, "finish_reason": "stop"}
    with pytest.raises(HalfAnswer):
        read_answer({"choices": [choice, choice]})


def test_answers_without_a_count_are_counted(tiny: Path, tmp_path: Path) -> None:
    """In the student's tokenizer; what was cut off counts as truncated."""
    script = lambda body, number: reply({"content": "red red", "reasoning_content": None}, "length")  # noqa: E731
    with teaching(script) as server:
        outcome, _ = run(tiny, tmp_path / "one", server, task="documents", keep=ANYTHING)
    for row in jsonl.iter_rows(outcome.path):
        assert (row["completion"], row["tokens"], row["finish_reason"]) == ("red red", 3, "length")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"engine": "transformers"}, "leave out engine: transformers"),
        ({"answers": "gold", "task": "documents"}, "answers: gold asks nobody"),
        ({"teacher": {"url": "http://me:secret@host", "model": "r1"}}, "names the variable with a key"),
        ({"teacher": {"url": "http://host"}}, "Field required"),
    ],
)
def test_contradictions_are_refused(changes: dict[str, Any], message: str) -> None:
    """Before anything starts; a secret in the address is refused, and not told."""
    with pytest.raises(ValueError, match=message) as caught:
        sample.Config.model_validate({**SMALL, "teacher": {"url": "http://host", "model": "r1"}, **changes})
    assert "secret" not in str(caught.value).replace("no_secrets", "").split("input_value")[0]
