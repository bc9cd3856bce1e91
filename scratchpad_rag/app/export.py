"""`export`: leave with a trained reader, for transformers, llama.cpp, Ollama, vLLM and the Hub."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

from safetensors import SafetensorError

from scratchpad_rag import __version__
from scratchpad_rag.app.hub import Destination, push, require_destination
from scratchpad_rag.app.measured import read_measured
from scratchpad_rag.app.runs import cannot_write, refuse_inside, require_writable, write_json
from scratchpad_rag.backends.vllm import allowed_rank, write_adapter
from scratchpad_rag.config import (
    ModelConfig,
    RunConfig,
    TrainConfig,
    bare_name,
    load_model_config,
    load_peft_config,
)
from scratchpad_rag.errors import CheckpointError, ConfigError, UserError
from scratchpad_rag.models.checkpoints import METADATA_FILE, Adapter, AdapterMetadata, read_adapter
from scratchpad_rag.models.export import merged, plain_weights, write_merged
from scratchpad_rag.models.gguf import (
    GGUF_TYPES,
    About,
    context_length,
    require_gguf,
    write_gguf,
)
from scratchpad_rag.models.gguf_check import Checked, check_gguf
from scratchpad_rag.models.gguf_vocab import added_around
from scratchpad_rag.models.load import LoadedModel, load_model
from scratchpad_rag.models.lora import lora_kwargs
from scratchpad_rag.models.origin import Origin, find_origin
from scratchpad_rag.prompts.modelfile import Limits, make_modelfile
from scratchpad_rag.reader import default_max_new_tokens, load_reader, prompt_format
from scratchpad_rag.records import Method, ScratchpadForm
from scratchpad_rag.report.card import CardFacts, Exported, Measured, make_card

Notify = Callable[[str], None]
FORMATS = ("merged", "gguf", "adapter")
_EXPORT_FILE = "scratchpad_rag_export.json"  # says that a folder is an export's
_ADAPTER_FOLDER = "adapter"  # beside merged weights, transformers would load it on top of them


@dataclass(frozen=True)
class Source:
    """The reader that is exported: its checkpoint, and what a bare state dict does not tell."""

    checkpoint: Path
    model: str | None = None  # a model config; None: the checkpoint's own
    torch_dtype: str | None = None  # None: the model config's
    peft: str | None = None
    train_method: Method | None = None
    scratchpad_form: ScratchpadForm | None = None


@dataclass(frozen=True)
class ExportJob:
    """What is written where, and what the card is told."""

    source: Source
    out: Path
    formats: tuple[str, ...]
    gguf_type: str = "f16"
    run: Path | None = None  # a run's folder, for the card's table
    base_model: str | None = None  # a Hub id that the model config does not name
    license: str | None = None
    overwrite: bool = False
    destination: Destination | None = None
    dry_run: bool = False


class Trained(NamedTuple):
    """A reader as it was trained: base weights with the adapter on them."""

    loaded: LoadedModel
    adapter: Adapter
    metadata: AdapterMetadata
    lora: dict[str, Any]  # the adapter's whole shape, which metadata may leave to defaults

    @property
    def method(self) -> Method:
        return Method(self.metadata.method)


class WrittenFile(NamedTuple):
    """A file of the export, by its path in the folder."""

    path: str
    size: int  # bytes


def export(job: ExportJob, notify: Notify = print) -> list[WrittenFile]:
    """Write the formats and the card into `job.out`, whole or not at all, and push them if asked.

    A dry run writes into a temporary folder, which is gone afterwards, and pushes nothing.
    Raises UserError for what cannot be exported, written or pushed.
    """
    _require_job(job)
    trained = open_trained(job.source, notify)
    origin = _origin(job, trained.loaded.config)
    measured = None
    if job.run is not None:
        measured = read_measured(job.run, trained.adapter, trained.metadata)
    if "gguf" in job.formats:
        require_gguf(trained.loaded)
    with _work_folder(job.out) as work:
        exported = _write_formats(job, trained, origin, work, notify)
        card = make_card(_facts(job, trained, origin, exported, measured))
        card.save(work / "README.md")
        _describe(job, trained.metadata, work)
        files = list_files(work)
        if job.dry_run:
            return files
        _put_in_place(work, job.out)
    notify(f"exported: {job.out}")
    if job.destination is not None:
        notify(f"uploaded: {push(job.out, job.destination)}")
    return files


def open_trained(source: Source, notify: Notify) -> Trained:
    """Load the base weights with the adapter; what a checkpoint lacks is refused before that."""
    adapter = read_adapter(source.checkpoint)
    told = adapter.metadata
    if told is None and None in (source.model, source.peft, source.train_method):
        raise CheckpointError(
            f"{adapter.path} has no metadata; say its --model_config, --peft_config and "
            "--train_method"
        )
    name = source.model or (told.model_name if told else "")
    model = load_model_config(name)
    if source.torch_dtype:
        model = replace(model, torch_dtype=source.torch_dtype)
    config = RunConfig(
        model=model,
        peft=load_peft_config(source.peft) if source.peft else None,
        train=TrainConfig(scratchpad_form=source.scratchpad_form),
        train_method=source.train_method,
        model_name=bare_name(name),
    )
    loaded = plain_weights(load_model(model, notify))
    loaded, method = load_reader(loaded, adapter, config)
    metadata = told or AdapterMetadata(
        method=method.value,
        model_name=config.model_name,
        base_hash=loaded.base_hash,
        lora=lora_kwargs(loaded.model),
        prompt_format=prompt_format(loaded),
        scratchpad_form=loaded.wording.form.value,
    )
    return Trained(loaded, replace(adapter, metadata=metadata), metadata, lora_kwargs(loaded.model))


def list_files(folder: Path) -> list[WrittenFile]:
    """Every file in a folder and in those below, by path."""
    paths = sorted(path for path in folder.rglob("*") if path.is_file())
    return [WrittenFile(str(path.relative_to(folder)), path.stat().st_size) for path in paths]


def _require_job(job: ExportJob) -> None:
    unknown = [name for name in job.formats if name not in FORMATS]
    if unknown or not job.formats:
        raise ConfigError(f"unknown format {unknown or 'none'}; choose from {', '.join(FORMATS)}")
    if job.gguf_type not in GGUF_TYPES:
        raise ConfigError(
            f"unknown gguf_type {job.gguf_type!r}; choose from {', '.join(GGUF_TYPES)}"
        )
    if job.out.exists():
        if not job.overwrite:
            raise UserError(f"{job.out} exists; --overwrite replaces it, or name another --out")
        if not (job.out / _EXPORT_FILE).is_file():
            raise UserError(f"{job.out} holds something else than an export; name another --out")
        refuse_inside(job.out, job.source.checkpoint, job.run)
    require_writable(job.out.parent)
    if job.destination is not None and not job.dry_run:
        require_destination(job.destination)


def _origin(job: ExportJob, config: ModelConfig) -> Origin:
    found = find_origin(config)
    return Origin(found.name, job.base_model or found.base_model, job.license or found.license)


def _write_formats(
    job: ExportJob, trained: Trained, origin: Origin, work: Path, notify: Notify
) -> Exported:
    exported = Exported()
    if "adapter" in job.formats:  # the first: afterwards the adapter is gone from the model
        rank = _write_adapter(trained, origin, work / _ADAPTER_FOLDER)
        exported = replace(exported, adapter=_ADAPTER_FOLDER, max_lora_rank=rank)
    if {"merged", "gguf"} & set(job.formats):
        plain = merged(trained.loaded)
        if "merged" in job.formats:
            write_merged(plain, work, default_max_new_tokens(trained.method))
            exported = replace(exported, merged=True)
        if "gguf" in job.formats:
            about = About(f"{trained.metadata.model_name}-{trained.method}", origin.license)
            name, checked = _write_gguf(job, trained, plain, about, work)
            exported = replace(exported, gguf=name)
            notify(f"{name}: read again, and {checked}")
    return exported


def _write_adapter(trained: Trained, origin: Origin, folder: Path) -> int:
    """PEFT's folder as vLLM loads it; returns the --max_lora_rank that vLLM needs for it."""
    folder.mkdir()
    rank = allowed_rank(write_adapter(trained.adapter, folder))
    write_json(folder / METADATA_FILE, asdict(trained.metadata))
    if origin.base_model is not None:
        file = folder / "adapter_config.json"
        config = json.loads(file.read_text(encoding="utf-8"))
        write_json(file, {**config, "base_model_name_or_path": origin.base_model})
    return rank


def _write_gguf(
    job: ExportJob, trained: Trained, plain: LoadedModel, about: About, work: Path
) -> tuple[str, Checked]:
    """The GGUF file, read again and compared, and its Modelfile."""
    name = f"{about.name}-{job.gguf_type}.gguf"
    write_gguf(plain, work / name, job.gguf_type, about)
    checked = check_gguf(plain, work / name, job.gguf_type)
    tokenizer = plain.tokenizer
    text = make_modelfile(
        name,
        plain.wording,
        tokenizer.convert_ids_to_tokens(list(plain.stop_token_ids)),
        Limits(context_length(plain), default_max_new_tokens(trained.method)),
        bos=tokenizer.bos_token if added_around(tokenizer)[0] else None,
    )
    (work / "Modelfile").write_text(text, encoding="utf-8")
    return name, checked


def _facts(
    job: ExportJob, trained: Trained, origin: Origin, exported: Exported, measured: Measured | None
) -> CardFacts:
    metadata = trained.metadata
    return CardFacts(
        title=f"{metadata.model_name} {metadata.method} reader",
        method=trained.method,
        model_name=metadata.model_name,
        base=origin.name,
        wording=trained.loaded.wording,
        lora={key: value for key, value in trained.lora.items() if key != "task_type"},
        trainings=[_without_folders(training) for training in metadata.trainings if training],
        exported=exported,
        base_model=origin.base_model,
        license=origin.license,
        repo_id=job.destination.repo_id if job.destination else None,
        measured=measured,
    )


def _without_folders(training: Mapping[str, Any]) -> dict[str, Any]:
    """Of the data's path only the last part: the rest tells of a machine, not of the training."""
    data = training.get("data")
    return {**training, "data": Path(str(data)).name} if data else dict(training)


def _describe(job: ExportJob, metadata: AdapterMetadata, work: Path) -> None:
    content = {
        "version": __version__,
        "formats": list(job.formats),
        "gguf_type": job.gguf_type if "gguf" in job.formats else None,
        "metadata": asdict(metadata),
    }
    write_json(work / _EXPORT_FILE, content)


@contextmanager
def _work_folder(out: Path) -> Iterator[Path]:
    """A folder beside `out` to write into; gone at the end unless it was renamed.

    Raises UserError where something in the block cannot be written.
    """
    work = None
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        work = Path(tempfile.mkdtemp(prefix=f".{out.name}-", dir=out.parent))
        yield work
    except (OSError, SafetensorError) as error:
        raise cannot_write(out, error) from error
    finally:
        if work is not None:
            shutil.rmtree(work, ignore_errors=True)


def _put_in_place(work: Path, out: Path) -> None:
    """Rename the finished folder; an export that was there goes only when the new one stands."""
    _open_to_others(work)
    if not out.exists():
        work.rename(out)
        return
    before = Path(tempfile.mkdtemp(prefix=f".{out.name}-before-", dir=out.parent))
    out.rename(before / out.name)
    try:
        work.rename(out)
    except OSError:
        (before / out.name).rename(out)
        raise
    finally:
        shutil.rmtree(before, ignore_errors=True)


def _open_to_others(folder: Path) -> None:
    """Temporary folders and safetensors are closed to others; what stays is as the umask says."""
    umask = os.umask(0)
    os.umask(umask)
    folder.chmod(0o777 & ~umask)
    for path in folder.rglob("*"):
        path.chmod((0o777 if path.is_dir() else 0o666) & ~umask)
