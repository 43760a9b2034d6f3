"""A Ray cluster from the driver's side: reached with a deadline, quiet, and told in words what it lacks."""

import logging
import os
import signal
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from importlib.util import find_spec
from typing import Any, Final

from r1pipe.errors import EnvironmentUnfit
from r1pipe.rollout.specs import RaySpec

_QUIET: Final = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",  # or each worker without a GPU warns of it
    "RAY_gcs_server_port_wait_time_s": "1",  # attempts, each of half a minute; by default twenty
}
_CONNECTING: Final = 10.0
"""Seconds for a connection to the head; a machine that is there takes it at once."""


def missing() -> str | None:
    """Why there is no cluster to be had from here, or None if nothing speaks against it."""
    if find_spec("ray") is not None:
        return None
    return (
        "Ray is not installed. In a checkout `make ray` installs it, elsewhere `pip install 'r1pipe[ray]'`; "
        "or write `engine: vllm` or `engine: transformers`, which sample on this machine."
    )


class Cluster:
    """A connection to a cluster; workers that were made through it end with it."""

    def __init__(self, spec: RaySpec) -> None:
        """Connect.

        Raises `EnvironmentUnfit` where Ray is not installed, no cluster is there, or one of another version.
        """
        if said := missing():
            raise EnvironmentUnfit(said)
        os.environ.update(_QUIET)
        import ray

        self._spec = spec
        self._ours = not ray.is_initialized()
        if self._ours:
            with _signals_kept():
                _connect(spec.address)
        self.address = str(ray.get_runtime_context().gcs_address)

    def room(self) -> int:
        """For how many workers the cluster is large enough, whatever else runs on it."""
        import ray

        nodes = [each["Resources"] for each in ray.nodes() if each["Alive"]]
        asked = {"CPU": self._spec.cpus, "GPU": self._spec.gpus}
        return sum(
            min(int(node.get(name, 0.0) / wanted) for name, wanted in asked.items() if wanted)
            for node in nodes
        )

    def holds(self) -> str:
        """What the cluster has, in words."""
        import ray

        all_, free = ray.cluster_resources(), ray.available_resources()
        alive = sum(each["Alive"] for each in ray.nodes())
        parts = [
            f"{all_.get(name, 0):g} {name}s ({free.get(name, 0):g} free)"
            for name in ("GPU", "CPU")
            if name == "CPU" or all_.get(name) or self._spec.gpus
        ]
        return f"the cluster at {self.address} has {alive} nodes with {' and '.join(parts)}"

    def no_room(self, last: str) -> EnvironmentUnfit:
        """What is said where no worker found a place in time."""
        spec = self._spec
        if self.room():
            way = "Wait until others leave, raise engine.timeout, or let a worker have less."
        elif spec.gpus:
            way = "Set engine.gpus: 0 to sample on CPUs, or start Ray on machines with so many GPUs."
        else:
            way = "Set engine.cpus lower, or start Ray on larger machines."
        return EnvironmentUnfit(
            f"For {spec.timeout:g} s no worker of {spec.gpus:g} GPUs and {spec.cpus:g} CPUs found a place: "
            f"{self.holds()}.{last} {way}"
        )

    def close(self) -> None:
        """Leave the cluster, which ends what was made through this connection."""
        import ray

        if self._ours and ray.is_initialized():
            with _signals_kept():
                ray.shutdown()


def _connect(address: str) -> None:
    import ray

    arguments: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR}
    if address == "local":
        arguments |= {"include_dashboard": False}
    else:
        address = _found(address)
    try:
        ray.init(address=address, **arguments)
    except (ConnectionError, RuntimeError, ValueError, ray.exceptions.RayError) as error:
        raise EnvironmentUnfit(
            f"The Ray cluster at {address} cannot be used: {' '.join(str(error).split())[:400]} This machine "
            f"has to be part of it, with the same versions of Ray ({ray.__version__}) and Python: run `ray "
            f"start --address {address}` here, or r1pipe on one of its machines."
        ) from error


def _found(address: str) -> str:
    """Host and port of the cluster. Ray itself waits for minutes where nobody listens; this does not."""
    from ray._private.services import canonicalize_bootstrap_address  # what `ray.init` asks, too

    found = canonicalize_bootstrap_address(address)
    if found is None:
        raise EnvironmentUnfit(
            "No Ray cluster runs on this machine. Start one by `ray start --head`, join one by `ray start "
            "--address HOST:PORT`, or name it in engine.address; `address: local` starts one for this stage."
        )
    host, _, port = str(found).rpartition(":")
    try:
        socket.create_connection((host.strip("[]"), int(port)), _CONNECTING).close()
    except OSError as error:
        raise EnvironmentUnfit(
            f"No Ray cluster answers at {found} ({error}). Start its head by `ray start --head --port "
            f"{port}` and the other machines by `ray start --address HOST:PORT`, or set engine.address to "
            "where it is."
        ) from error
    return str(found)


@contextmanager
def _signals_kept() -> Iterator[None]:
    """Leave SIGTERM as it was: Ray would have this process end by an exception wherever it is."""
    before = signal.getsignal(signal.SIGTERM)
    try:
        yield
    finally:
        with suppress(ValueError):  # not the main thread, in which Ray changes nothing either
            signal.signal(signal.SIGTERM, before or signal.SIG_DFL)
