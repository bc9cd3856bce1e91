"""Passages ranked for questions, by words, by meaning or by chance, and distractors among them."""

from scratchpad_rag.data.retrieve.bm25 import PassageRanker, rank_passages
from scratchpad_rag.data.retrieve.mine import MiningRules, mine, mine_distractors

__all__ = ["MiningRules", "PassageRanker", "mine", "mine_distractors", "rank_passages"]
