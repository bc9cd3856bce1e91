"""`scratchpad-rag data download NAME`, through the command line."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import NamedTuple

import pytest

from scratchpad_rag.app.cli import main
from scratchpad_rag.data.catalogue import CATALOGUE, PublicSet, RemoteFile
from tests.data.shapes.files import KILT, TWO_WIKI
from tests.data.test_download import Server, server

__all__ = ["server"]  # a fixture


class Ended(NamedTuple):
    code: int
    out: str
    err: str


@pytest.fixture
def download(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> object:
    monkeypatch.chdir(tmp_path)

    def run(*words: str) -> Ended:
        monkeypatch.setattr(sys, "argv", ["scratchpad-rag", "data", "download", *words])
        with pytest.raises(SystemExit) as ended:
            main()
        captured = capsys.readouterr()
        return Ended(int(ended.value.code or 0), captured.out, captured.err)

    return run


def refused(ended: Ended, folder: Path) -> str:
    assert (ended.code, ended.out) == (2, "")
    [line] = ended.err.strip().splitlines()
    assert line.startswith("error: ")
    assert list(folder.iterdir()) == []
    return line


def test_the_list(download, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    place = CATALOGUE["squad"].places("val", tmp_path)[0]
    place.parent.mkdir()
    place.write_text("{}")
    ended = download("--list", "--data_dir", str(tmp_path))
    lines = {line.split()[0]: line for line in ended.out.splitlines()}
    assert set(lines) == {"nq_lim", *CATALOGUE}
    assert lines["squad"].endswith("CC-BY-SA-4.0  here: val")
    assert lines["musique"].split()[-2:] == ["CC-BY-4.0", "-"]


def test_a_set_by_name(  # type: ignore[no-untyped-def]
    download, tmp_path: Path, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    base = server.url.removesuffix("/qa_data")
    server.bodies["/dev.json"] = json.dumps([TWO_WIKI]).encode()
    server.bodies["/kilt.jsonl"] = json.dumps(KILT).encode()
    entries = [
        PublicSet("own", "mine", "MIT", base, {"val": RemoteFile(f"{base}/dev.json")}),
        PublicSet(
            "kilt", "pages", "MIT", base, {"val": RemoteFile(f"{base}/kilt.jsonl")}, None, True
        ),
    ]
    known = {entry.name: entry for entry in entries}
    for module in ("scratchpad_rag.app.downloads", "scratchpad_rag.data.catalogue"):
        monkeypatch.setattr(f"{module}.CATALOGUE", known)
    ended = download("own", "--split", "all")
    assert ended.code == 0
    assert (tmp_path / "data/qa_data/own/dev.json").is_file()
    assert f"own: mine; MIT, {base}" in ended.err
    assert "data build" in download("kilt").err


def test_mistakes(download, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    line = refused(download("hotpot"), tmp_path)
    assert "unknown data set 'hotpot'; choose from nq_lim, hotpotqa_distractor" in line
    line = refused(download("squad", "--split", "test"), tmp_path)
    assert "unknown split 'test'; choose from val, train, all" in line
    assert "kv_75_keys has no train questions" in refused(
        download("kv_75_keys", "--split", "train"), tmp_path
    )
    assert "leave out --hub" in refused(download("kv_75_keys", "--hub"), tmp_path)
    assert "10, 20, 30" in refused(download("nq_lim", "--total_docs", "15"), tmp_path)
