"""Merge an adapter into its model and save both as a transformers folder, for other libraries.

    python benchmarks/peers/merge.py --checkpoint checkpoints/smollm2_135m/scratchpad_rag.pt \\
        --out MODEL_FOLDER

Run by the project's own python. The weights keep the precision that they were loaded in (bf16).
"""

from __future__ import annotations

import argparse
from pathlib import Path

from scratchpad_rag.reader import Reader


def main() -> None:
    """Load the reader, whose adapter is merged on loading, and save weights and tokenizer."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--checkpoint", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    flags = parser.parse_args()
    loaded = Reader.load(flags.checkpoint).loaded
    loaded.model.save_pretrained(flags.out)
    loaded.tokenizer.save_pretrained(flags.out)
    print(f"{flags.out}: {loaded.model.dtype}, stop tokens {list(loaded.stop_token_ids)}")


if __name__ == "__main__":
    main()
