"""What changed between an image and its parent."""

from extensions.imagebuilder.changes import DPKG, Package, Tree, changes
from tests.imagebuilder.layers import directory, entry, layer, link

STATUS = b"Package: bash\nStatus: install ok installed\nVersion: 5.2\nDescription: x\n more: y\n"
ADDED = b"\nPackage: tree\nStatus: install ok installed\nVersion: 2.1-1\n\nPackage: old\nStatus: deinstall ok config-files\n"
SITE = "opt/venv/lib/python3.11/site-packages"


def parent(*members):
    tree = Tree()
    tree.apply(layer(*members))
    return tree


def test_files_are_told_as_added_changed_and_deleted_the_largest_first():
    base = parent(
        entry("a", b"1"), entry("b", b"22"), entry("d/x", b"333"), entry("d/y"), entry("o/1"), entry("oo")
    )
    told = changes(
        base,
        layer(
            entry("b", b"2"), entry("new", b"n"), entry("big", b"nnnn"), link("same", "big"), directory("d"),
            entry(".wh.d"), entry("o/2", b"z"), entry("o/.wh..wh..opq"),
        ),
    )  # fmt: skip
    assert list(told.added.items()) == [("big", 4), ("same", 4), ("new", 1), ("o/2", 1)]
    assert told.changed == {"b": 1}
    assert told.deleted == {"d/x": 3, "d/y": 0, "o/1": 0}


def test_the_parent_is_not_changed_by_looking():
    base = parent(entry("a", b"1"))
    changes(base, layer(entry(".wh.a")))
    assert base.sizes == {"a": 1}


def test_packages_of_all_three_tools_are_told_as_a_difference():
    base = parent(entry(DPKG, STATUS), entry(f"{SITE}/six-1.0.dist-info/METADATA", b"x"))
    told = changes(
        base,
        layer(
            entry(DPKG, STATUS + ADDED),
            entry(f"{SITE}/.wh.six-1.0.dist-info"),
            entry(f"{SITE}/my_tool-2.0.dist-info/METADATA", b"x"),
            entry(f"{SITE}/my_tool-2.0.dist-info/INSTALLER", b"pip\n"),
            entry("opt/conda/conda-meta/scikit-learn-1.5-py311_0.json", b"{}"),
            entry("opt/conda/lib/python3.11/site-packages/scikit_learn-1.5.dist-info/INSTALLER", b"conda"),
            entry("opt/conda/lib/python3.11/site-packages/scikit_learn-1.5.dist-info/METADATA", b"x"),
        ),
    )
    assert told.packages_added == [
        Package("apt", "", "tree", "2.1-1"),
        Package("conda", "opt/conda", "scikit-learn", "1.5=py311_0"),
        Package("pip", SITE, "my-tool", "2.0"),
    ]
    assert told.packages_removed == [Package("pip", SITE, "six", "1.0")]
