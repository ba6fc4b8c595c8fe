import pytest

from mbgraph import registry
from mbgraph.errors import UnknownNameError, UsageError
from mbgraph.registry import Registry


class Point:
    """An entry point that remembers how often it was loaded."""

    def __init__(self, name, value):
        self.name, self.value, self.loads = name, value, 0

    def load(self):
        self.loads += 1
        return self.value


@pytest.fixture
def plugins(monkeypatch):
    points: list[Point] = []
    monkeypatch.setattr(registry, "entry_points", lambda group: points if group == "mbgraph.animals" else [])
    return points


@pytest.fixture
def animals(plugins):
    made = Registry("animal", "mbgraph.animals")
    made.register("cat")("Cat")
    made.register("dog")("Dog")
    return made


def test_what_is_registered_is_found(animals):
    assert animals.get("cat") == "Cat"
    assert animals.names() == list(animals) == ["cat", "dog"]
    assert "dog" in animals
    assert "cow" not in animals


def test_register_returns_what_it_files():
    @Registry("animal", "none").register("cow")
    class Cow:
        pass

    assert isinstance(Cow, type)


def test_a_taken_name_is_refused(animals):
    with pytest.raises(UsageError, match="animal name 'cat' is already taken by 'Cat'; choose another name"):
        animals.register("cat")("Tiger")
    assert animals.get("cat") == "Cat"


def test_the_same_entry_may_come_twice(animals):
    animals.register("cat")(animals.get("cat"))  # as when a module is reloaded
    assert animals.names() == ["cat", "dog"]


def test_an_unknown_name_names_the_nearest(animals):
    with pytest.raises(UnknownNameError, match=r"unknown animal 'catt'; did you mean 'cat'\?"):
        animals.get("catt")
    with pytest.raises(UnknownNameError, match="unknown animal 'zebra'; choose from: cat, dog"):
        animals.get("zebra")


def test_plugins_are_loaded_once_and_late(animals, plugins):
    cow = Point("cow", "Cow")
    plugins.append(cow)
    assert cow.loads == 0
    assert animals.get("cow") == "Cow"
    assert "cow" in animals
    assert animals.names() == ["cat", "cow", "dog"]
    assert cow.loads == 1


def test_a_plugin_cannot_replace_a_built_in(animals, plugins):
    impostor = Point("cat", "Tiger")
    plugins.append(impostor)
    assert animals.get("cat") == "Cat"
    assert impostor.loads == 0


def test_groups_are_separate(plugins):
    plugins.append(Point("cow", "Cow"))
    assert Registry("model", "mbgraph.others").names() == []
