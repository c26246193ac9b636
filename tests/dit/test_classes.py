"""Names of classes: ImageNet's thousand, each found by what only it is called, and no guess where two are."""

from collections import Counter

import pytest

from dit.classes import class_names, find_class, imagenet_classes, titles

NAMES = imagenet_classes()

# From the DiT authors' sample.py, and the ends.
KNOWN = {0: "tench", 1: "goldfish", 88: "macaw", 207: "golden retriever", 279: "Arctic fox", 360: "otter"}
KNOWN |= {387: "lesser panda", 417: "balloon", 974: "geyser", 979: "valley", 999: "toilet tissue"}


def synonyms(name: str) -> list[str]:
    return [synonym.strip() for synonym in name.split(",")]


def test_the_thousand_are_in_label_order_and_all_different():
    assert len(NAMES) == len(set(NAMES)) == 1000
    assert all(name == name.strip() and name for name in NAMES)
    for y, name in KNOWN.items():
        assert synonyms(NAMES[y])[0] == name
    assert (NAMES[134], NAMES[517]) == ("crane (the bird)", "crane (the machine)")


@pytest.mark.parametrize(
    ("provenance", "num_classes", "expected"),
    [
        ({}, 1000, NAMES),
        ({"classes": "imagenet"}, 1000, NAMES),
        ({"classes": None}, 1000, NAMES),
        ({"classes": ["cat", "dog"]}, 2, ("cat", "dog")),
        ({"classes": ["cat"] * 1000}, 1000, ("cat",) * 1000),
        ({}, 3, ("class 0", "class 1", "class 2")),
        ({}, 0, ()),
        ({"classes": []}, 0, ()),
    ],
    ids=range(8),
)
def test_a_models_names_are_its_provenances(provenance, num_classes, expected):
    assert class_names(provenance, num_classes) == expected


def test_titles_are_short_and_all_different():
    short = titles(NAMES)
    assert len(set(short)) == 1000
    for y, name in KNOWN.items():
        assert short[y] == name
    assert (short[638], short[639]) == ("maillot", "maillot, tank suit")
    assert titles(["cat, tomcat", "dog", "cat, puma"]) == ("cat, tomcat", "dog", "cat, puma")
    assert titles(()) == ()


def test_every_class_is_found_by_its_whole_line():
    for y, name in enumerate(NAMES):
        assert find_class(NAMES, name) == find_class(NAMES, f" {name} ") == y


def test_every_class_is_found_by_each_name_that_is_its_alone():
    counts = Counter(synonym.casefold() for name in NAMES for synonym in set(synonyms(name)))
    for y in range(0, 1000, 3):
        for synonym in synonyms(NAMES[y]):
            if counts[synonym.casefold()] == 1:
                assert find_class(NAMES, synonym) == find_class(NAMES, f" {synonym.upper()} ") == y


@pytest.mark.parametrize(
    ("wanted", "label"),
    [
        ("maillot", 638),  # 639 is "maillot, tank suit"
        ("missile", 657),  # 744 is "projectile, missile"
        ("harp", 594),
        ("Cardigan", 264),  # the corgi, and not
        ("cardigan", 474),  # the garment
    ],
)
def test_an_exact_name_wins(wanted, label):
    assert find_class(NAMES, wanted) == label


@pytest.mark.parametrize(
    ("wanted", "labels"),
    [("crane", [134, 517]), ("Crane", [134, 517]), ("panda", [387, 388]), ("horn", [513, 566])],
)
def test_a_name_of_several_is_not_guessed(wanted, labels):
    with pytest.raises(ValueError) as error:
        find_class(NAMES, wanted)
    message = str(error.value)
    assert f"class {wanted!r} may be" in message and "give the number" in message
    for y in labels:
        assert f"{y} ({NAMES[y]})" in message


def test_an_unknown_name_says_what_is_near():
    with pytest.raises(
        ValueError, match=r"no class is called 'retriever'; near are 205 \(flat-coated retriever"
    ):
        find_class(NAMES, "retriever")
    with pytest.raises(ValueError, match="no class is called 'unicorn'$"):
        find_class(NAMES, "unicorn")


@pytest.mark.parametrize("wanted", ["", "  ", ",", "x" * 10_000, "crane (the", "(the bird)"])
def test_nonsense_finds_nothing_and_says_so_briefly(wanted):
    with pytest.raises(ValueError, match="no class is called") as error:
        find_class(NAMES, wanted)
    assert len(str(error.value)) < 1000


def test_own_names_are_found_alike():
    names = ("Katze", "Straße, Weg", "İstanbul")
    assert [find_class(names, wanted) for wanted in ("katze", "STRASSE", "weg", "İstanbul")] == [0, 1, 1, 2]
