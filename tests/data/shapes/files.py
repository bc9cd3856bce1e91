"""Files of one object of every official shape, small enough to work out by hand."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

HUB_HOTPOT: dict[str, Any] = {
    "id": "5a7a",
    "question": "Where was the author of Dracula born?",
    "answer": "Clontarf",
    "type": "bridge",
    "level": "hard",
    "context": {
        "title": ["Bram Stoker", "Carmilla", "Dracula"],
        "sentences": [["A writer.", " Born in Clontarf."], ["By Le Fanu."], ["A novel."]],
    },
    "supporting_facts": {"title": ["Dracula", "Bram Stoker"], "sent_id": [0, 1]},
}
TWO_WIKI: dict[str, Any] = {
    "_id": "100c",
    "type": "compositional",
    "question": "Where was the author of Dracula born?",
    "context": [
        ["Bram Stoker", ["A writer.", "Born in Clontarf."]],
        ["Carmilla", ["By Le Fanu."]],
        ["Dracula", ["A novel."]],
    ],
    "entity_ids": "Q1_Q2",
    "supporting_facts": [["Dracula", 0], ["Bram Stoker", 1]],
    "evidences": [["Dracula", "author", "Bram Stoker"], ["Bram Stoker", "born", "Clontarf"]],
    "evidences_id": [],
    "answer": "Clontarf",
    "answer_id": "Q3",
}
MUSIQUE: dict[str, Any] = {
    "id": "3hop1__1_2_3",
    "question": "Where did the author of Carmilla's successor die?",
    "paragraphs": [
        paragraph | {"idx": number}
        for number, paragraph in enumerate(
            [
                {"title": "London", "paragraph_text": "A city.", "is_supporting": True},
                {"title": "Emma", "paragraph_text": "A novel.", "is_supporting": False},
                {"title": "Bram Stoker", "paragraph_text": "Died there.", "is_supporting": True},
                {"title": "Emma", "paragraph_text": "A name.", "is_supporting": False},
                {"title": "Dracula", "paragraph_text": "By Stoker.", "is_supporting": True},
            ]
        )
    ],
    "question_decomposition": [
        {"id": 1, "question": "What came after?", "answer": "Dracula", "paragraph_support_idx": 4},
        {"id": 2, "question": "Who wrote #1?", "answer": "Stoker", "paragraph_support_idx": 2},
        {"id": 3, "question": "Where died #2?", "answer": "London", "paragraph_support_idx": 0},
    ],
    "answer": "London",
    "answer_aliases": ["Greater London", "London"],
    "answerable": True,
}
SQUAD: dict[str, Any] = {
    "version": "1.1",
    "data": [
        {
            "title": "Bram_Stoker",
            "paragraphs": [
                {
                    "context": "Stoker wrote Dracula in 1897.",
                    "qas": [
                        {
                            "id": "s1",
                            "question": "When was Dracula written?",
                            "answers": [
                                {"text": "1897", "answer_start": 24},
                                {"text": "in 1897", "answer_start": 21},
                                {"text": "1897", "answer_start": 24},
                            ],
                        },
                        {
                            "id": "s2",
                            "question": "Who wrote Dracula?",
                            "answers": [{"text": "Stoker", "answer_start": 0}],
                        },
                    ],
                },
                {"context": "He lived in London.", "qas": []},
                {
                    "context": "He was born in Clontarf.",
                    "qas": [
                        {
                            "id": "s3",
                            "question": "Where was he born?",
                            "answers": [{"text": "Clontarf", "answer_start": 15}],
                        }
                    ],
                },
                {"context": "He lived in London.", "qas": []},
            ],
        },
        {
            "title": "Emma",
            "paragraphs": [
                {
                    "context": "A novel by Austen.",
                    "qas": [
                        {
                            "id": "s4",
                            "question": "Who wrote Emma?",
                            "answers": [{"text": "Austen", "answer_start": 11}],
                        }
                    ],
                }
            ],
        },
    ],
}


def squad_rows() -> list[dict[str, Any]]:
    """The same questions as the Hub has them."""
    return [
        {
            "id": question["id"],
            "title": article["title"],
            "context": paragraph["context"],
            "question": question["question"],
            "answers": {
                key: [answer[key] for answer in question["answers"]]
                for key in ("text", "answer_start")
            },
        }
        for article in SQUAD["data"]
        for paragraph in article["paragraphs"]
        for question in paragraph["qas"]
    ]


def dpr_passage(title: str, text: str, **more: Any) -> dict[str, Any]:
    return {"title": title, "text": text, "score": 1000.0, "title_score": 1, **more}


DPR: dict[str, Any] = {
    "dataset": "nq_dev_psgs_w100",
    "question": "who wrote dracula",
    "answers": ["Bram Stoker", "Stoker", "Bram Stoker"],
    "positive_ctxs": [
        dpr_passage("Dracula", "A novel by Bram Stoker.", passage_id="7"),
        dpr_passage("Bram Stoker", "Stoker wrote Dracula.", passage_id="8"),
    ],
    "negative_ctxs": [
        dpr_passage("Emma", "A novel by Austen."),
        dpr_passage("Carmilla", "By Le Fanu."),
        dpr_passage("Bram Stoker", "Stoker wrote Dracula."),
    ],
    "hard_negative_ctxs": [dpr_passage("Carmilla", "By Le Fanu.")],
}
RETRIEVED: dict[str, Any] = {
    "question": "who wrote dracula",
    "answers": ["Stoker"],
    "ctxs": [
        {"id": "wiki:1", "title": "Carmilla", "text": "By Le Fanu.", "score": "83.2"}
        | {"has_answer": False},
        {"id": "wiki:2", "title": "Dracula", "text": "By Stoker.", "score": "81.0"}
        | {"has_answer": True},
        {"id": "wiki:3", "title": "Emma", "text": "By Austen.", "score": "80.0"}
        | {"has_answer": False},
        {"id": "wiki:4", "title": "Stoker", "text": "Stoker wrote.", "score": "79.0"}
        | {"has_answer": True},
    ],
}
KEY_VALUE: dict[str, Any] = {
    "ordered_kv_records": [["a-1", "v-1"], ["b-2", "v-2"], ["c-3", "v-3"]],
    "key": "b-2",
    "value": "v-2",
}
KILT: dict[str, Any] = {
    "id": "k1",
    "input": "who wrote dracula",
    "output": [
        {"answer": "Bram Stoker"},
        {
            "answer": "Stoker",
            "provenance": [
                {
                    "wikipedia_id": "8214",
                    "title": "Dracula",
                    "start_paragraph_id": 1,
                    "end_paragraph_id": 1,
                    "meta": {"evidence_span": ["a novel by Bram"]},
                },
                {"wikipedia_id": "4", "title": "Bram Stoker", "start_paragraph_id": 2},
            ],
        },
        {"answer": "Stoker", "provenance": [{"wikipedia_id": "5", "title": "Emma"}]},
    ],
}


def write_lines(path: Path, *rows: object) -> Path:
    text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    path.write_text(text, encoding="utf-8")
    return path
