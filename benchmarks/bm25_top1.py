"""How often BM25 alone finds the gold passage among those shown: what a reader has to beat.

    python benchmarks/bm25_top1.py --data_path data/qa_data/sample --total_docs 20

Word counts are those of all passages in the file. Prints one JSON line.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from scratchpad_rag.data.place import place
from scratchpad_rag.data.readers import read_examples
from scratchpad_rag.data.retrieve import PassageRanker


def main() -> None:
    """Rank the passages shown for every question and count the gold ones ranked first."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data_path", type=Path, required=True)
    parser.add_argument("--total_docs", type=int, default=20)
    parser.add_argument("--quick", action="store_true", help="the first 200 questions only")
    flags = parser.parse_args()
    examples = read_examples(flags.data_path)
    ranker = PassageRanker([passage for example in examples for passage in example.passages])
    asked = examples[:200] if flags.quick else examples
    shown = [place(example, flags.total_docs, 0) for example in asked]
    first = [ranker.rank(example.question, example.passages)[0] for example in shown]
    hits = sum(best in example.gold for best, example in zip(first, shown, strict=True))
    print(
        json.dumps(
            {
                "benchmark": "bm25_top1",
                "case": f"{flags.data_path.name}-{flags.total_docs}-docs",
                "metric": "gold_ranked_first",
                "value": round(hits / len(shown), 4),
                "unit": "share",
                "runs": len(shown),
            }
        )
    )


if __name__ == "__main__":
    main()
