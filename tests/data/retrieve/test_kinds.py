import pytest

from scratchpad_rag.data.retrieve.kinds import Kind, find_kind, kind_of


@pytest.mark.parametrize(
    ("answer", "kind"),
    [
        ("1972", Kind.YEAR),
        (" 2018 ", Kind.YEAR),
        ("14 December 1972 UTC", Kind.DATE),
        ("December 14", Kind.DATE),
        ("March 2018", Kind.DATE),
        ("3000", Kind.NUMBER),
        ("13.5 million", Kind.NUMBER),
        ("seven", Kind.NUMBER),
        ("20%", Kind.NUMBER),
        ("Paris", Kind.NAME),
        ("Charles, Prince of Wales", Kind.NAME),
        ("Élise van den Berg", Kind.NAME),
        ("the President of India", Kind.NAME),
        ("beneath the liver", Kind.OTHER),
        ("yes", Kind.OTHER),
        ("of the", Kind.OTHER),
        ("", Kind.OTHER),
    ],
)
def test_the_kind_of_an_answer(answer: str, kind: Kind) -> None:
    assert kind_of(answer) is kind


TEXT = (
    "In May 1901 Ida Holm, keeper of the light, moved to Port of Ansen with 12 men. The mill of"
    " Karl von Ansen burned on 3 June, at a cost of 1,500 crowns and two horses."
)


@pytest.mark.parametrize(
    ("kind", "found"),
    [
        (Kind.YEAR, {"1901"}),
        (Kind.DATE, {"may 1901", "3 june"}),
        (Kind.NUMBER, {"1901", "12", "3", "1,500", "two"}),
        (Kind.NAME, {"in may", "ida holm", "port of ansen", "karl von ansen"}),
        (Kind.OTHER, set()),
    ],
)
def test_the_things_of_a_kind_in_a_text(kind: Kind, found: set[str]) -> None:
    assert find_kind(kind, TEXT) == found


def test_years_are_whole_numbers() -> None:
    assert find_kind(Kind.YEAR, "flight 19015 and 0999, 2100 or 1000") == {"1000"}
