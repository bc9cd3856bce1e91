"""The checks of an audit on what is trained on against what is validated on."""

from __future__ import annotations

from collections import Counter, defaultdict

from scratchpad_rag.data.audit_records import (
    Finding,
    Instance,
    Known,
    Samples,
    Verdict,
)
from scratchpad_rag.data.near import near_pairs
from scratchpad_rag.data.normalise import normalise_question
from scratchpad_rag.records import Example

_ONE_PLACE = 0.6  # of the samples with gold at one index, where several could hold it


def overlap(known: Known) -> list[Finding]:
    """Validation questions that are trained on too, word for word or nearly."""
    keys = [normalise_question(e.question) for e in known.examples]
    sides: dict[str, set[int]] = defaultdict(set)
    first: dict[tuple[str, int], Example] = {}
    for key, side, example in zip(keys, known.sides, known.examples, strict=True):
        sides[key].add(side)
        first.setdefault((key, side), example)
    val = [key for key, own in sides.items() if 1 in own]
    same = [key for key in val if 0 in sides[key]]
    either = [key for key, own in sides.items() if len(own) == 1]
    pairs = near_pairs(either, known.settings.near, 1, [min(sides[key]) for key in either])
    close: dict[str, str] = {}
    for one, other, _ in pairs:
        trained, asked = sorted((either[one], either[other]), key=lambda key: min(sides[key]))
        close.setdefault(asked, trained)
    near = [(first[asked, 1], first[trained, 0]) for asked, trained in close.items()]
    # Questions of one pattern ("when was X built") differ in what counts: another answer tells.
    leaks = [pair for pair in near if _share_an_answer(*pair)]
    rest = [pair for pair in near if not _share_an_answer(*pair)]
    told = f"{len(near):,} of {len(val):,} ({_percent(len(near), len(val))}) have a training "
    told += f"question that shares {known.settings.near:.0%} of their words"
    if near:
        told += f", {len(leaks):,} of them with the same answer"
    return [
        Finding(
            "overlap",
            "No validation question in training",
            Verdict.REFUSE if same else Verdict.OK,
            f"{len(same):,} of {len(val):,} ({_percent(len(same), len(val))}) are in both"
            if same
            else f"none of {len(val):,}; sides by {known.split_by}",
            len(same),
            len(val),
            "Scores on questions that were trained on tell nothing. Split by question.",
            tuple(_both(first[key, 1], first[key, 0]) for key in same[: known.settings.shown]),
        ),
        Finding(
            "near_overlap",
            "No validation question nearly in training",
            Verdict.LOOK if leaks else Verdict.OK,
            told if near else f"none of {len(val):,}",
            len(near),
            len(val),
            "The same question in other words, with the same answer, is as good as trained on: "
            "leave one of the two out. Questions of one pattern about other things are none.",
            tuple(_both(*pair) for pair in (leaks + rest)[: known.settings.shown]),
        ),
    ]


def shared_gold(known: Known) -> list[Finding]:
    """Gold passages of validation that scratchpads of training quote."""
    trained: dict[int, Example] = {}
    for example, texts, side in zip(known.examples, known.texts, known.sides, strict=True):
        if side == 0:
            for index in example.gold:
                trained.setdefault(texts[index], example)
    shared: list[Instance] = []
    count = total = 0
    for example, texts, side in zip(known.examples, known.texts, known.sides, strict=True):
        if side != 1 or not example.gold:
            continue
        total += 1
        own = [index for index in example.gold if texts[index] in trained]
        if own:
            count += 1
            if len(shared) < known.settings.shown:
                other = trained[texts[own[0]]]
                passage = example.passages[own[0]]
                pairs = (("gold of both", passage.title), ("in training", other.question))
                shared.append(Instance(example.id, example.question, pairs))
    return [
        Finding(
            "shared_gold",
            "Gold passages apart",
            Verdict.LOOK if count else Verdict.OK,
            f"{count:,} of {total:,} ({_percent(count, total)}) validation questions have a gold "
            "passage that is gold in training"
            if count
            else f"none of {total:,} validation questions shares one with training",
            count,
            total,
            "A reader has learnt to quote these passages, so that quoting them is easier than "
            "quoting new ones. Compare methods that were trained on the same questions.",
            tuple(shared),
        )
    ]


def repeated_questions(known: Known) -> list[Finding]:
    """The same question more than once on one side."""
    keys = [normalise_question(e.question) for e in known.examples]
    groups: dict[tuple[str, int], list[Example]] = defaultdict(list)
    for key, side, example in zip(keys, known.sides, known.examples, strict=True):
        groups[key, side].append(example)
    again = [group for group in groups.values() if len(group) > 1]
    count = sum(len(group) - 1 for group in again)
    apart = [group for group in again if not _share_an_answer(group[0], group[1])]
    told = f"{count:,} of {len(keys):,} ({_percent(count, len(keys))}) come again"
    if apart:
        told += f", {len(apart):,} of them with another answer"
    return [
        Finding(
            "repeated",
            "Every question once",
            Verdict.LOOK if count else Verdict.OK,
            told if count else f"none of {len(keys):,} comes again",
            count,
            len(keys),
            "Questions asked twice weigh twice in training and in scores.",
            tuple(_both(g[1], g[0], "also") for g in (apart or again)[: known.settings.shown]),
        )
    ]


def spread_of_gold(samples: Samples) -> list[Finding]:
    """Whether training shows the gold passage at more than one place."""
    places = [example.gold[0] for example in samples.train if example.gold]
    if not places:
        return []
    room = max(len(example.passages) - len(example.gold) for example in samples.train)
    counts = Counter(places)
    index, most = counts.most_common(1)[0]
    share = most / len(places)
    return [
        Finding(
            "gold_spread",
            "Gold passage at several places in training",
            Verdict.LOOK if room and share > _ONE_PLACE else Verdict.OK,
            f"{len(counts)} places, {share:.0%} of {len(places):,} samples at index {index}",
            most,
            len(places),
            "A reader learns where to look instead of what to look for: name more positions "
            "(--gold_at), or draw them (--train_positions uniform).",
        )
    ]


def _share_an_answer(one: Example, other: Example) -> bool:
    answers = {answer.casefold().strip() for answer in one.answers}
    return any(answer.casefold().strip() in answers for answer in other.answers)


def _both(example: Example, other: Example, where: str = "in training") -> Instance:
    return Instance(
        example.id,
        example.question,
        (
            ("answers", " | ".join(example.answers)),
            (where, f"{other.question} ({other.id})"),
            ("its answers", " | ".join(other.answers)),
        ),
    )


def _percent(count: int, total: int) -> str:
    return f"{100 * count / total:.1f}%" if total else "0%"
