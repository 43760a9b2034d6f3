"""A server on the loopback that answers as `vllm serve` does, and misbehaves as it is told to."""

import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, TypeVar

from safetensors.torch import load_file
from transformers import PreTrainedTokenizerBase

from r1pipe.rollout import Sampling
from r1pipe.rollout.local import TransformersEngine
from r1pipe.rollout.probe import policy_logprobs

Answer = dict[str, Any]
Trouble = Callable[["Reply"], None]
"""Spoils a reply."""


@dataclass
class Reply:
    """What the server is about to send."""

    handler: BaseHTTPRequestHandler
    number: int
    """Of the completion that is asked for, from 1; 0 for all else."""
    answer: Answer
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes | None = None
    length: int | None = None
    pause: float = 0.0
    """Seconds before each byte."""

    @property
    def choice(self) -> Answer:
        return self.answer["choices"][0]


class Server(ThreadingHTTPServer):
    """Answers as `vllm serve` does, from an engine of its own."""

    daemon_threads = True

    def __init__(self, engine: TransformersEngine, tokenizer: PreTrainedTokenizerBase, context: int) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.engine = engine
        self.tokenizer = tokenizer
        self.models: list[Answer] = [{"id": "tiny", "max_model_len": context}]
        self.settings = {
            "model_config": {"dtype": "torch.float32", "logprobs_mode": "processed_logprobs"},
            "load_config": {"load_format": "dummy"},
        }
        self.version = "default"
        self.done: list[Answer | str] = []
        """What was asked of the routes of the dev mode, in order."""
        self.trouble: Trouble = lambda reply: None
        self.asked: list[Answer] = []
        self.keys: list[str | None] = []
        self.together = self.most = 0
        self.lock = threading.Lock()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    def complete(self, body: Answer) -> Answer:
        """The answer to a request, sampled now."""
        pairs = [self.tokenizer.encode(word) for word in body.get("bad_words", [])]
        sampling = Sampling(
            body["max_tokens"],
            body["temperature"],
            body["top_p"],
            body["top_k"],
            forbid_after=dict(pairs),
            logprobs=body.get("logprobs") is not None,
        )
        with self.lock:
            (rollout,) = self.engine.generate([body["prompt"]], sampling, seeds=[body.get("seed", 0)])
        logprobs = None if rollout.logprobs is None else {"token_logprobs": rollout.logprobs}
        choice = {
            "index": 0,
            "text": self.tokenizer.decode(rollout.token_ids),
            "finish_reason": rollout.finish,
            "token_ids": rollout.token_ids,
            "prompt_token_ids": body["prompt"],
            "logprobs": logprobs,
        }
        if "prompt_logprobs" in body:
            read = policy_logprobs(self.engine.model, body["prompt"]).tolist()
            told = zip(body["prompt"][1:], read, strict=True)
            choice["prompt_logprobs"] = [None, *({str(token): {"logprob": each}} for token, each in told)]
        return {"model": body["model"], "choices": [choice]}

    def dev(self, path: str, body: Answer | None) -> Answer:
        """The answer of a route of the dev mode, carried out now."""
        self.done.append(path if body is None else body)
        match path, body:
            case "/server_info?config_format=json", None:
                return {"vllm_config": self.settings}
            case "/collective_rpc", {"method": "reload_weights", "kwargs": {"weights_path": folder}}:
                self.engine.model.load_state_dict(load_file(Path(folder) / "model.safetensors"))
                return {"results": [None]}
            case "/collective_rpc", {"method": "update_config"}:
                return {"results": [None]}
            case "/reset_prefix_cache", None:
                return {"success": True}
            case "/update_weight_version", {"new_version": version}:
                self.version = version
                return {"success": True, "new_version": version}
            case "/weight_info", None:
                return {"weight_version": self.version}
        raise AssertionError(f"{path} {body}")


class Handler(BaseHTTPRequestHandler):
    """One connection."""

    protocol_version = "HTTP/1.1"
    server: Server

    def do_GET(self) -> None:
        if self.path == "/v1/models":
            self._send(Reply(self, 0, {"object": "list", "data": self.server.models}))
        else:
            self._send(Reply(self, 0, self.server.dev(self.path, None)))

    def do_POST(self) -> None:
        text = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        body = json.loads(text) if text else None
        if self.path != "/v1/completions":
            self._send(Reply(self, 0, self.server.dev(self.path, body)))
            return
        with self.server.lock:
            self.server.asked.append(body)
            number = len(self.server.asked)
            self.server.together += 1
            self.server.most = max(self.server.most, self.server.together)
        self._send(Reply(self, number, self.server.complete(body)))
        with self.server.lock:
            self.server.together -= 1

    def _send(self, reply: Reply) -> None:
        self.server.keys.append(self.headers["Authorization"])
        self.server.trouble(reply)
        body = json.dumps(reply.answer).encode() if reply.body is None else reply.body
        self.send_response(reply.status)
        for name, value in reply.headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body) if reply.length is None else reply.length))
        self.end_headers()
        try:
            if reply.pause:
                for byte in body:
                    time.sleep(reply.pause)
                    self.wfile.write(bytes([byte]))
            else:
                self.wfile.write(body)
        except OSError:  # the other end has hung up
            self.close_connection = True
        self.close_connection |= reply.length is not None

    def log_message(self, *_: Any) -> None:
        """Quiet."""


AnyServer = TypeVar("AnyServer", bound=ThreadingHTTPServer)


@contextmanager
def serving(engine: TransformersEngine, tokenizer: PreTrainedTokenizerBase, context: int) -> Iterator[Server]:
    """A server of an engine that runs in a thread."""
    with running(Server(engine, tokenizer, context)) as server:
        yield server


@contextmanager
def running(server: AnyServer) -> Iterator[AnyServer]:
    """A server that runs in a thread."""
    with server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()
