"""The public question sets that are known by name: what they are, whose, and where they come from.

Nothing of them is part of this project. Sizes and checksums stand where the publisher's file is
known by them; licences are SPDX names, as the sets' own pages give them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from scratchpad_rag.errors import DataError

DATA_DIR = Path("data/qa_data")
SPLITS = ("train", "val")


class RemoteFile(NamedTuple):
    """A plain file at an address; `size` in bytes, None where not known."""

    url: str
    size: int | None = None
    sha256: str | None = None

    @property
    def name(self) -> str:
        return self.url.rpartition("/")[2]


class HubSource(NamedTuple):
    """A data set of the Hugging Face Hub at a fixed revision; `splits` maps ours to its own."""

    repo: str
    config: str | None
    revision: str | None
    splits: Mapping[str, str]


@dataclass(frozen=True)
class PublicSet:
    """A set by name. `files` and `hub` are two ways to the same questions, by split."""

    name: str
    about: str
    licence: str
    page: str
    files: Mapping[str, RemoteFile] = field(default_factory=dict)
    hub: HubSource | None = None
    needs_corpus: bool = False  # its questions name their passages and do not bring them

    @property
    def splits(self) -> tuple[str, ...]:
        """Those of train and val that there are."""
        known = {*self.files, *(self.hub.splits if self.hub else ())}
        return tuple(split for split in SPLITS if split in known)

    def folder(self, data_dir: Path = DATA_DIR) -> Path:
        return data_dir / self.name

    def places(self, split: str, data_dir: Path = DATA_DIR) -> list[Path]:
        """Where the questions of a split may lie: the publisher's file, or the Hub's rows."""
        folder = self.folder(data_dir)
        official = [folder / self.files[split].name] if split in self.files else []
        return [*official, folder / hub_file_name(split)]

    def found(self, split: str, data_dir: Path = DATA_DIR) -> Path | None:
        """The file of a split that is there."""
        there = (path for path in self.places(split, data_dir) if path.exists())
        return next(there, None)


def hub_file_name(split: str) -> str:
    return f"{split}.jsonl.gz"


def public_set(name: str) -> PublicSet:
    """The set of that name; DataError with the choices."""
    if name not in CATALOGUE:
        raise DataError(f"unknown data set {name!r}; choose from {', '.join(CATALOGUE)}")
    return CATALOGUE[name]


_HOTPOT = "http://curtis.ml.cmu.edu/datasets/hotpot"
_HOTPOT_TRAIN = RemoteFile(
    f"{_HOTPOT}/hotpot_train_v1.1.json",
    566426227,
    "26650cf50234ef5fb2e664ed70bbecdfd87815e6bffc257e068efea5cf7cd316",
)
_HOTPOT_HUB = ("hotpotqa/hotpot_qa", "1908d6afbbead072334abe2965f91bd2709910ab")
_MUSIQUE_REVISION = "c8f4f8c9465fb69d31a8eae894c3fd509c4ca321"
# The authors' own place is an archive on Google Drive; this copy of its files is theirs byte for
# byte.
_MUSIQUE = f"https://huggingface.co/datasets/dgslibisey/MuSiQue/resolve/{_MUSIQUE_REVISION}"
_SQUAD = "https://rajpurkar.github.io/SQuAD-explorer/dataset"
_DPR = "https://dl.fbaipublicfiles.com/dpr/data/retriever"
_LIM = "https://raw.githubusercontent.com/nelson-liu/lost-in-the-middle/main/kv_retrieval_data"
_LIM_PAGE = "https://github.com/nelson-liu/lost-in-the-middle"
_BOTH = {"train": "train", "val": "validation"}


def _key_values(keys: int) -> PublicSet:
    return PublicSet(
        name=f"kv_{keys}_keys",
        about=f"Lost in the Middle's key-value retrieval, {keys} pairs of random identifiers",
        licence="MIT",
        page=_LIM_PAGE,
        files={"val": RemoteFile(f"{_LIM}/kv-retrieval-{keys}_keys.jsonl.gz")},
    )


CATALOGUE: Mapping[str, PublicSet] = {
    entry.name: entry
    for entry in (
        PublicSet(
            name="hotpotqa_distractor",
            about="HotpotQA, two gold paragraphs among ten",
            licence="CC-BY-SA-4.0",
            page="https://hotpotqa.github.io",
            files={
                "train": _HOTPOT_TRAIN,
                "val": RemoteFile(
                    f"{_HOTPOT}/hotpot_dev_distractor_v1.json",
                    46320117,
                    "4e9ecb5c8d3b719f624d66b60f8d56bf227f03914f5f0753d6fa1b359d7104ea",
                ),
            },
            hub=HubSource(_HOTPOT_HUB[0], "distractor", _HOTPOT_HUB[1], _BOTH),
        ),
        PublicSet(
            name="hotpotqa_fullwiki",
            about="HotpotQA, ten paragraphs as a retriever found them; gold ones are often missing",
            licence="CC-BY-SA-4.0",
            page="https://hotpotqa.github.io",
            files={
                "val": RemoteFile(
                    f"{_HOTPOT}/hotpot_dev_fullwiki_v1.json",
                    sha256="2f1f3e594a3066a3084cc57950ca2713c24712adaad03af6ccce18d1846d5618",
                )
            },
            hub=HubSource(_HOTPOT_HUB[0], "fullwiki", _HOTPOT_HUB[1], {"val": "validation"}),
        ),
        PublicSet(
            name="musique",
            about="MuSiQue-Answerable, two to four gold paragraphs among twenty",
            licence="CC-BY-4.0",
            page="https://github.com/StonyBrookNLP/musique",
            files={
                "train": RemoteFile(
                    f"{_MUSIQUE}/musique_ans_v1.0_train.jsonl",
                    sha256="83a75b1e11e4e9bb8f8308e72ac40ca617ae4431b3a0d955b61cab259248490a",
                ),
                "val": RemoteFile(
                    f"{_MUSIQUE}/musique_ans_v1.0_dev.jsonl",
                    30439728,
                    "15fa63794d18a94ce12411aca6e2327e65b6e83b0b1490efab3f1962e48abf3b",
                ),
            },
            hub=HubSource("dgslibisey/MuSiQue", None, _MUSIQUE_REVISION, _BOTH),
        ),
        PublicSet(
            name="2wiki",
            about="2WikiMultihopQA, two or four gold paragraphs among ten",
            licence="Apache-2.0",
            page="https://github.com/Alab-NII/2wikimultihop",
            hub=HubSource(
                "framolfese/2WikiMultihopQA",
                None,
                "fe713bfbd1afbca1a65246741a75890405d56a3a",
                _BOTH,
            ),
        ),
        PublicSet(
            name="squad",
            about="SQuAD 1.1, the paragraph asked about among those of its article",
            licence="CC-BY-SA-4.0",
            page="https://rajpurkar.github.io/SQuAD-explorer",
            files={
                "train": RemoteFile(
                    f"{_SQUAD}/train-v1.1.json",
                    30288272,
                    "3527663986b8295af4f7fcdff1ba1ff3f72d07d61a20f487cb238a6ef92fd955",
                ),
                "val": RemoteFile(
                    f"{_SQUAD}/dev-v1.1.json",
                    4854279,
                    "95aa6a52d5d6a735563366753ca50492a658031da74f301ac5238b03966972c9",
                ),
            },
            hub=HubSource(
                "rajpurkar/squad", None, "7b6d24c440a36b6815f21b70d25016731768db1f", _BOTH
            ),
        ),
        PublicSet(
            name="triviaqa_dpr",
            about="TriviaQA with the positive and hard negative passages of DPR",
            licence="CC-BY-NC-4.0",
            page="https://github.com/facebookresearch/DPR",
            files={
                "train": RemoteFile(f"{_DPR}/biencoder-trivia-train.json.gz"),
                "val": RemoteFile(f"{_DPR}/biencoder-trivia-dev.json.gz"),
            },
        ),
        PublicSet(
            name="nq_dpr",
            about="Natural Questions with the positive and hard negative passages of DPR",
            licence="CC-BY-SA-3.0",
            page="https://github.com/facebookresearch/DPR",
            files={
                "train": RemoteFile(f"{_DPR}/biencoder-nq-train.json.gz"),
                "val": RemoteFile(f"{_DPR}/biencoder-nq-dev.json.gz"),
            },
        ),
        _key_values(75),
        _key_values(140),
        _key_values(300),
        PublicSet(
            name="nq_kilt",
            about="Natural Questions as KILT has them: pages and evidence, no passages",
            licence="CC-BY-SA-3.0",
            page="https://github.com/facebookresearch/KILT",
            files={
                "train": RemoteFile("http://dl.fbaipublicfiles.com/KILT/nq-train-kilt.jsonl"),
                "val": RemoteFile("http://dl.fbaipublicfiles.com/KILT/nq-dev-kilt.jsonl"),
            },
            needs_corpus=True,
        ),
    )
}
