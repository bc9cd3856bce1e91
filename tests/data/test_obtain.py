from __future__ import annotations

import gzip
import hashlib
import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from scratchpad_rag.data import obtain as module
from scratchpad_rag.data.catalogue import (
    CATALOGUE,
    HubSource,
    PublicSet,
    RemoteFile,
    public_set,
)
from scratchpad_rag.data.download import CHECKSUMS
from scratchpad_rag.data.obtain import SOURCE, obtain
from scratchpad_rag.data.readers import read_examples
from scratchpad_rag.errors import DataError
from tests.data.shapes.files import HUB_HOTPOT, TWO_WIKI
from tests.data.test_download import Server, server

__all__ = ["server"]  # a fixture

BODY = (json.dumps([TWO_WIKI]) + "\n").encode()
NAMES = {"train": "train.json", "val": "dev.json"}


def remote(server: Server, sha256: str | None = None, size: int | None = None) -> PublicSet:
    base = server.url.removesuffix("/qa_data")
    files = {split: RemoteFile(f"{base}/{name}", size, sha256) for split, name in NAMES.items()}
    return PublicSet("wiki", "questions", "CC-BY-4.0", "https://example.org", files)


def bring(chosen: PublicSet, folder: Path, split: str = "val", hub: bool = False) -> list[str]:
    said: list[str] = []
    obtain(chosen, split, said.append, folder, hub, timeout_seconds=5.0, progress=False)
    return said


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.rglob("*") if path.is_file())


# --- plain files


def test_a_file_is_brought_once(tmp_path: Path, server: Server) -> None:
    server.bodies["/dev.json"] = BODY
    chosen = remote(server, hashlib.sha256(BODY).hexdigest(), len(BODY))
    path = obtain(chosen, "val", print, tmp_path, progress=False)
    assert path == tmp_path / "wiki" / "dev.json" == chosen.found("val", tmp_path)
    assert chosen.found("train", tmp_path) is None
    assert [example.id for example in read_examples(path)] == ["100c"]
    assert bring(chosen, tmp_path) == []
    assert server.asked == ["/dev.json"]
    assert names(tmp_path) == [CHECKSUMS, "dev.json", SOURCE]
    source = json.loads((tmp_path / "wiki" / SOURCE).read_text())
    assert source == {"licence": "CC-BY-4.0", "source": "https://example.org"}


@pytest.mark.parametrize("size", [None, len(BODY)])
def test_bytes_that_are_not_the_known_ones_are_refused(
    tmp_path: Path, server: Server, size: int | None
) -> None:
    server.bodies["/dev.json"] = BODY
    chosen = remote(server, hashlib.sha256(b"other").hexdigest(), size)
    with pytest.raises(DataError, match=r"/dev\.json has changed: \d+ bytes with sha256") as caught:
        bring(chosen, tmp_path)
    assert "\n" not in str(caught.value)
    assert names(tmp_path) == []


def test_a_publisher_that_changed_its_file_is_noticed(tmp_path: Path, server: Server) -> None:
    server.bodies["/dev.json"] = BODY
    chosen = remote(server)
    bring(chosen, tmp_path)
    path = tmp_path / "wiki" / "dev.json"
    path.unlink()
    server.bodies["/dev.json"] = BODY + b"\n"
    with pytest.raises(DataError, match="has changed"):
        bring(chosen, tmp_path)
    assert names(tmp_path) == [CHECKSUMS, SOURCE]
    server.bodies["/dev.json"] = BODY
    bring(chosen, tmp_path)
    path.write_bytes(BODY + b" ")
    with pytest.raises(DataError, match="delete the file to download it again"):
        bring(chosen, tmp_path)


def test_a_page_in_place_of_json(tmp_path: Path, server: Server) -> None:
    server.bodies["/dev.json"] = b"<html>Please log in</html>"
    with pytest.raises(DataError, match="what came is not JSON"):
        bring(remote(server), tmp_path)
    with pytest.raises(DataError, match="the server answered 404"):
        bring(remote(server), tmp_path, "train")
    assert names(tmp_path) == []


def test_another_licence_is_said_in_one_line(tmp_path: Path, server: Server) -> None:
    server.bodies["/dev.json"] = BODY
    chosen = remote(server)
    assert bring(chosen, tmp_path) == []
    newer = PublicSet("wiki", "questions", "CC-BY-NC-4.0", chosen.page, chosen.files)
    [line] = bring(newer, tmp_path)
    assert line.startswith("the licence of wiki changed: it was CC-BY-4.0, ")
    assert "CC-BY-NC-4.0" in line
    assert "\n" not in line
    (tmp_path / "wiki" / SOURCE).write_text("[]")
    with pytest.raises(DataError, match=r"source\.json: cannot be read; delete it"):
        bring(chosen, tmp_path)


def test_splits_that_are_not_there(tmp_path: Path) -> None:
    keys = public_set("kv_75_keys")
    with pytest.raises(DataError, match="kv_75_keys has no train questions"):
        bring(keys, tmp_path, "train")
    with pytest.raises(DataError, match="the Hub has no val questions of kv_75_keys"):
        bring(keys, tmp_path, "val", hub=True)
    with pytest.raises(DataError, match="hotpotqa_fullwiki has no train questions"):
        bring(public_set("hotpotqa_fullwiki"), tmp_path, "train", hub=True)
    with pytest.raises(DataError, match="unknown data set 'none'; choose from hotpotqa_distractor"):
        public_set("none")


# --- the Hub, through a folder that the same library builds from


@pytest.fixture
def repo(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    import datasets.config
    from datasets.utils import logging

    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    logging.disable_progress_bar()
    folder = tmp_path / "repo"
    folder.mkdir()
    write_repo(folder, "cc-by-sa-4.0")
    yield folder
    logging.enable_progress_bar()


def write_repo(folder: Path, licence: str, **changes: object) -> None:
    (folder / "README.md").write_text(f"---\nlicense: {licence}\n---\n# A set\n")
    for split in ("train", "validation"):
        row = HUB_HOTPOT | {"id": split} | changes
        (folder / f"{split}.jsonl").write_text(json.dumps(row) + "\n")


def of_hub(repo: Path) -> PublicSet:
    source = HubSource(str(repo), None, None, {"train": "train", "val": "validation"})
    return PublicSet("set", "questions", "CC-BY-SA-4.0", "https://example.org", hub=source)


def test_rows_of_the_hub(tmp_path: Path, repo: Path) -> None:
    chosen, out = of_hub(repo), tmp_path / "out"
    assert bring(chosen, out) == []  # cc-by-sa-4.0 is CC-BY-SA-4.0
    assert names(out) == [CHECKSUMS, SOURCE, "val.jsonl.gz"]
    path = chosen.found("val", out)
    assert path is not None
    [example] = read_examples(path)
    assert (example.id, example.gold) == ("validation", (2, 0))
    [line] = gzip.decompress(path.read_bytes()).decode().splitlines()
    assert json.loads(line) == HUB_HOTPOT | {"id": "validation"}
    bring(chosen, out, "train")
    assert len(names(out)) == 4


def test_a_card_with_another_licence(tmp_path: Path, repo: Path) -> None:
    write_repo(repo, "cc-by-nc-4.0")
    [line] = bring(of_hub(repo), tmp_path / "out")
    assert "was CC-BY-SA-4.0" in line
    assert "now names cc-by-nc-4.0" in line
    write_repo(repo, "other")
    [line] = bring(of_hub(repo), tmp_path / "out")
    assert "was cc-by-nc-4.0" in line
    (repo / "README.md").unlink()
    assert module.hub_licence(str(repo)) is None


def test_rows_that_changed_are_refused(tmp_path: Path, repo: Path) -> None:
    chosen, out = of_hub(repo), tmp_path / "out"
    bring(chosen, out)
    path = chosen.found("val", out)
    assert path is not None
    path.unlink()
    write_repo(repo, "cc-by-sa-4.0", answer="Dublin")
    with pytest.raises(DataError, match="has changed since it was first downloaded") as caught:
        bring(chosen, out)
    assert "\n" not in str(caught.value)
    assert names(out) == [CHECKSUMS, SOURCE]


def test_a_hub_that_cannot_be_reached(tmp_path: Path, repo: Path) -> None:
    (repo / "validation.jsonl").write_text('{"id": ')
    for chosen in (of_hub(repo), of_hub(tmp_path / "none")):
        with pytest.raises(DataError, match=r"cannot download .* from the Hub: ") as caught:
            bring(chosen, tmp_path / "out")
        assert "\n" not in str(caught.value)
        assert names(tmp_path / "out") == []


# --- the catalogue itself


def test_every_set_can_be_brought() -> None:
    for name, entry in CATALOGUE.items():
        assert entry.name == name
        assert "val" in entry.splits
        assert entry.licence
        assert entry.page.startswith("https://")
        for split in entry.splits:
            files = entry.places(split)
            assert len({path.name for path in files}) == len(files)
        for file in entry.files.values():
            assert file.name.endswith((".json", ".jsonl", ".jsonl.gz", ".json.gz"))
            assert file.sha256 is None or len(bytes.fromhex(file.sha256)) == 32
