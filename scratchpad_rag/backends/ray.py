"""Many machines at once: Ray Data hands batches of prompts to workers of a cluster.

Each worker opens the backend once, from the config and the adapter. The process that asks loads no
weights. Ray is imported where it is used.
"""

from __future__ import annotations

import logging
import os
import pickle
import re
import socket
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

from scratchpad_rag.backends.base import Backend
from scratchpad_rag.config import EvaluateConfig, GenerateConfig
from scratchpad_rag.errors import BackendError, ConfigError, UserError
from scratchpad_rag.records import Completion, Rendered

Notify = Callable[[str], None]
OpenBackend = Callable[[Notify], Backend]

EXECUTORS = ("local", "ray")
# Prompts that a worker gets at a time: as many as its backend works on side by side, and few enough
# that the bar moves and little is done again when a worker is lost.
_CPU_BATCH = 8
_GPU_BATCH = 64
_ENGINE_BATCH = 1024
# Batches a worker, so that none waits long for the last one to end.
_BATCHES_A_WORKER = 4
# A batch whose workers were lost so often is given up: its prompts may be what kills them.
_MOST_TRIES = 3
_CONNECT_SECONDS = 5.0
_VARIABLES = {"RAY_USAGE_STATS_ENABLED": "0", "RAY_BACKEND_LOG_LEVEL": "fatal"}


@dataclass(frozen=True)
class RaySettings:
    """How the prompts are spread over a cluster."""

    address: str | None = None  # not given: a running cluster, else one on this machine
    num_actors: int | None = None  # not given: one a GPU, without GPUs one a machine
    computes: bool = True  # whether a worker computes, or only asks a server
    batch_size: int | None = None  # prompts at a time; not given: by the device


class Resources(NamedTuple):
    """The workers and what each of them takes of its machine."""

    actors: int
    cpus: int
    gpus: int


class Batch(NamedTuple):
    """Prompts with their numbers, counted from 0 over all prompts."""

    numbers: tuple[int, ...]
    prompts: tuple[Rendered, ...]


class Job(NamedTuple):
    """What a worker needs before its first batch."""

    open_backend: OpenBackend
    longest: Rendered  # of all prompts, by characters


class Answers(NamedTuple):
    """What comes back for a batch: completions by the numbers of their prompts, or why not."""

    completions: dict[int, Completion]
    notes: tuple[str, ...]  # what the backend had to say since the batch before
    tries: int  # how often a worker began with this batch
    problem: UserError | None = None


def require_executor(config: EvaluateConfig) -> None:
    """Refuse an executor that is unknown, not installed or not to be reached, before any work.

    Raises ConfigError or BackendError.
    """
    if config.executor not in EXECUTORS:
        raise ConfigError(
            f"unknown executor {config.executor!r}; choose from {', '.join(EXECUTORS)}"
        )
    if config.executor == "local":
        for name in ("num_actors", "ray_address"):
            if getattr(config, name) is not None:
                raise ConfigError(f"--{name} is for --executor ray; local has no use for it")
        return
    if config.num_actors is not None and config.num_actors < 1:
        raise ConfigError(f"num_actors is {config.num_actors}; it must be 1 or more")
    if find_spec("ray") is None or find_spec("pyarrow") is None:
        raise ConfigError("--executor ray needs Ray: pip install 'scratchpad-rag[ray]'")
    _require_reachable(config.ray_address or os.environ.get("RAY_ADDRESS"))


def require_local_executor(config: EvaluateConfig, what: str) -> None:
    """Refuse work that is done in this process alone."""
    if config.executor != "local":
        raise ConfigError(
            f"{what} is done in one process; --executor {config.executor} only evaluates "
            "(--eval_only)"
        )


def ray_settings(evaluate: EvaluateConfig, generate: GenerateConfig) -> RaySettings:
    """The settings that the configs of a run come to."""
    sizes = {"vllm": _ENGINE_BATCH, "http": 2 * generate.concurrency}
    return RaySettings(
        address=evaluate.ray_address,
        num_actors=evaluate.num_actors,
        computes=generate.backend != "http",
        batch_size=sizes.get(generate.backend, generate.batch_size),
    )


def _require_reachable(address: str | None) -> None:
    """Ray itself would try for minutes."""
    if address in (None, "auto", "local"):
        return
    host, _, port = str(address).rpartition(":")
    if not host or not port.isdecimal() or "/" in host:
        raise ConfigError(f"ray_address {address!r} is not an address such as 10.0.0.1:6379")
    try:
        socket.create_connection((host.strip("[]"), int(port)), _CONNECT_SECONDS).close()
    except (OSError, OverflowError) as error:
        reason = getattr(error, "strerror", None) or error
        raise BackendError(f"no Ray cluster answers at {address}: {reason}") from error


class RayBackend:
    """Any backend, opened by workers of a Ray cluster; `open_backend` is sent to them.

    Completions are kept by the numbers of their prompts, so that a batch which a lost worker leaves
    behind is done again and nothing comes twice. The cluster is joined with the first prompt and
    left after the last one; one that the caller has joined is kept.
    """

    def __init__(
        self, open_backend: OpenBackend, settings: RaySettings, notify: Notify = lambda _: None
    ) -> None:
        self.open_backend = open_backend
        self.settings = settings
        self.notify = notify
        self._said: set[str] = set()

    def generate(self, prompts: Sequence[Rendered]) -> Iterator[Completion]:
        """Raises the UserError that a worker met, or BackendError where the workers are lost."""
        early: dict[int, Completion] = {}
        due = 0
        for number, completion in self.generate_as_done(prompts):
            early[number] = completion
            while due in early:
                yield early.pop(due)
                due += 1

    def generate_as_done(self, prompts: Sequence[Rendered]) -> Iterator[tuple[int, Completion]]:
        """The same with the numbers of the prompts, none of which waits for those before it."""
        if not prompts:
            return
        with _joined(self.settings.address):
            resources = self._resources(len(prompts))
            batches = self._batches(prompts, resources)
            self.notify(_describe(resources, len(batches[0].prompts)))
            job = Job(self.open_backend, max(prompts, key=lambda prompt: prompt.prompt_end))
            missing = set(range(len(prompts)))
            for answers in _answer(batches, job, resources):
                self._say(answers)
                for number in sorted(missing & answers.completions.keys()):
                    yield number, answers.completions[number]
                missing -= answers.completions.keys()
            assert not missing, f"{len(missing)} of {len(prompts)} prompts were not answered"

    def _resources(self, prompts: int) -> Resources:
        import ray

        nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
        cpus = [int(node.get("CPU", 0)) for node in nodes]
        gpus = [int(node.get("GPU", 0)) if self.settings.computes else 0 for node in nodes]
        return plan_resources(cpus, gpus, self.settings, prompts)

    def _batches(self, prompts: Sequence[Rendered], resources: Resources) -> list[Batch]:
        most = self.settings.batch_size or (_GPU_BATCH if resources.gpus else _CPU_BATCH)
        size = plan_batch_size(len(prompts), resources.actors, most)
        starts = range(0, len(prompts), size)
        numbers = [range(start, min(start + size, len(prompts))) for start in starts]
        return [Batch(tuple(some), tuple(prompts[number] for number in some)) for some in numbers]

    def _say(self, answers: Answers) -> None:
        for note in answers.notes:
            if note not in self._said:  # the workers say the same, each for itself
                self._said.add(note)
                self.notify(note)
        if answers.problem is not None:
            raise answers.problem
        if answers.tries > 1:
            self.notify(
                f"a worker was lost; its batch of {len(answers.completions)} has been answered "
                "again"
            )


def plan_resources(
    cpus: Sequence[int], gpus: Sequence[int], settings: RaySettings, prompts: int
) -> Resources:
    """How many workers there are, and how much of its machine each one takes.

    `cpus` and `gpus` are those of each machine. A worker computes on one GPU where there are any,
    else on as many cores as all of them can have. There are never more workers than prompts.
    Raises ConfigError for more workers than the cluster has room for.

    >>> plan_resources([16, 16], [2, 2], RaySettings(), prompts=1000)
    Resources(actors=4, cpus=1, gpus=1)
    >>> plan_resources([8, 4], [0, 0], RaySettings(), prompts=1000)
    Resources(actors=2, cpus=4, gpus=0)
    """
    room, kind = (sum(gpus), "GPUs") if any(gpus) else (sum(cpus), "CPU cores")
    asked = settings.num_actors or (sum(gpus) if any(gpus) else sum(count > 0 for count in cpus))
    if not 0 < asked <= room:
        raise ConfigError(f"num_actors is {asked}, and the cluster has {room} {kind}")
    actors = min(asked, prompts)
    if any(gpus) or not settings.computes:
        return Resources(actors, cpus=1, gpus=int(any(gpus)))
    fitting = (n for n in range(max(cpus), 0, -1) if sum(c // n for c in cpus) >= actors)
    return Resources(actors, cpus=next(fitting), gpus=0)


def plan_batch_size(prompts: int, actors: int, most: int) -> int:
    """Prompts of a batch: `most`, or fewer where some workers would get none or much less.

    >>> plan_batch_size(1000, 2, 64), plan_batch_size(100, 2, 64), plan_batch_size(3, 2, 64)
    (64, 13, 1)
    """
    return min(most, -(-prompts // (_BATCHES_A_WORKER * actors)))


def _describe(resources: Resources, size: int) -> str:
    kind, count = ("GPU", resources.gpus) if resources.gpus else ("CPU core", resources.cpus)
    share = f"{count} {kind}{'' if count == 1 else 's'}"
    if resources.actors == 1:
        return f"Ray: 1 worker with {share}, batches of {size}"
    return f"Ray: {resources.actors} workers with {share} each, batches of {size}"


@contextmanager
def _joined(address: str | None) -> Iterator[None]:
    """A connection to the cluster; what Ray has to say about it is left to Ray's own log files."""
    with _environment():  # Ray reads its settings while it is imported
        import ray
        import ray.data
    with _muted():
        if ray.is_initialized():
            yield
            return
        try:
            with _environment(), _closed_stderr():
                ray.init(
                    address=address,
                    include_dashboard=False,
                    log_to_driver=False,
                    logging_level=logging.CRITICAL,
                )
        except (OSError, RuntimeError, ValueError) as error:
            where = address or os.environ.get("RAY_ADDRESS") or "this machine"
            raise BackendError(f"cannot join a Ray cluster at {where}: {_words(error)}") from error
        try:
            yield
        finally:
            ray.shutdown()


@contextmanager
def _environment() -> Iterator[None]:
    """Variables for Ray and the processes that it starts; what the user has set is kept."""
    wanted = {**_VARIABLES, **({"RAY_AUTH_MODE": "token"} if _holds_token() else {})}
    added = {name: value for name, value in wanted.items() if name not in os.environ}
    os.environ.update(added)
    try:
        yield
    finally:
        for name in added:
            os.environ.pop(name, None)


def _holds_token() -> bool:
    """Whether this machine holds the token that guards its clusters. `ray start` then asks for it,
    and whoever joins by address has to show it; a cluster without one passes over it."""
    named = ("RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH")
    return (Path.home() / ".ray" / "auth_token").is_file() or any(map(os.environ.get, named))


@contextmanager
def _closed_stderr() -> Iterator[None]:
    """Ray's compiled part announces the level of its log past Python's own standard error."""
    sys.stderr.flush()
    kept, nowhere = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 2)
    try:
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nowhere)


@contextmanager
def _muted() -> Iterator[None]:
    """Ray's lines about bars, schedules and lost workers; ours say what a user needs to know."""
    import ray

    logger = logging.getLogger("ray.data")
    worker: Any = ray._private.worker
    before = logger.level, worker._worker_logs_enabled
    logger.setLevel(logging.CRITICAL + 1)
    worker._worker_logs_enabled = False
    try:
        yield
    finally:
        logger.setLevel(before[0])
        worker._worker_logs_enabled = before[1]


def _answer(batches: Sequence[Batch], job: Job, resources: Resources) -> Iterator[Answers]:
    """What the workers make of the batches, each as soon as it is done."""
    import pyarrow as pa
    import ray
    import ray.data
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    tables = [pa.table({"batch": pa.array([pickle.dumps(b)], pa.binary())}) for b in batches]
    dataset = ray.data.from_arrow(tables)
    dataset.context.enable_progress_bars = False
    dataset.context.print_on_execution_start = False
    dataset.context.execution_no_progress_timeout_s = -1  # a batch may take long
    here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
    tries = ray.remote(num_cpus=0, scheduling_strategy=here)(Tries).remote()
    answered = dataset.map_batches(
        Worker,
        fn_constructor_args=(ray.put(job), tries),
        batch_size=1,  # a row is a batch of prompts
        batch_format="pyarrow",
        compute=ray.data.ActorPoolStrategy(size=resources.actors, max_tasks_in_flight_per_actor=1),
        num_cpus=resources.cpus,
        num_gpus=resources.gpus,
    )
    try:
        tables = answered.iter_batches(batch_size=None, batch_format="pyarrow", prefetch_batches=0)
        for table in tables:
            for content in table["answers"].to_pylist():
                yield pickle.loads(content)
    except ray.exceptions.RayTaskError:
        raise  # an error in our code, with its traceback
    except ray.exceptions.RayError as error:
        raise BackendError(_explain(error)) from error


class Tries:
    """How often each batch was begun; it lives beside the process that asks."""

    def __init__(self) -> None:
        self.begun: Counter[int] = Counter()

    def begin(self, first: int) -> int:
        """Count one more beginning of the batch whose first prompt has this number."""
        self.begun[first] += 1
        return self.begun[first]


class Worker:
    """Answers batches in a process of its own, with a backend that is opened once."""

    def __init__(self, job: Any, tries: Any) -> None:
        """References to a Job and to a Tries, as Ray hands them out."""
        self.job = job
        self.tries = tries
        self.notes: list[str] = []
        self._backend: Backend | None = None

    def __call__(self, table: Any) -> Any:
        """A table of pickled batches -> a table of their pickled answers."""
        import pyarrow as pa

        batches = [pickle.loads(content) for content in table["batch"].to_pylist()]
        answers = [pickle.dumps(self.answer(batch)) for batch in batches]
        return pa.table({"answers": pa.array(answers, pa.binary())})

    def answer(self, batch: Batch) -> Answers:
        """Answer a batch. What a user can put right is an answer too: Ray would retry an error."""
        import ray

        tries = ray.get(self.tries.begin.remote(batch.numbers[0]))
        try:
            if tries > _MOST_TRIES:
                raise BackendError(
                    f"{_MOST_TRIES} workers were lost at the same batch of {len(batch.numbers)} "
                    "prompts, perhaps for want of memory; use fewer workers (--num_actors)"
                )
            completions = self._open().generate(batch.prompts)
            answered = dict(zip(batch.numbers, completions, strict=True))
        except UserError as error:
            located = type(error)(f"{error} (on {socket.gethostname()})")
            return Answers({}, self._news(), tries, located)
        return Answers(answered, self._news(), tries)

    def _open(self) -> Backend:
        import ray

        if self._backend is None:
            job: Job = ray.get(self.job)
            self._backend = job.open_backend(self.notes.append)
            make_room = getattr(self._backend, "make_room", None)
            if make_room is not None:  # of an engine, which a longer prompt would start anew
                make_room(job.longest)
        return self._backend

    def _news(self) -> tuple[str, ...]:
        news = tuple(self.notes)
        self.notes.clear()
        return news


def _explain(error: BaseException) -> str:
    missing = re.search(r"No module named '([\w.]+)'", str(error))
    if missing is not None:
        return (
            f"a machine of the Ray cluster has no Python package {missing[1].partition('.')[0]}; "
            "install the same scratchpad-rag on all of them"
        )
    return f"the workers of the Ray cluster are lost: {_words(error)}"


def _words(error: BaseException) -> str:
    plain = re.sub(r"\x1b\[[0-9;]*m", "", str(error))
    return " ".join(plain.split())[:300]
