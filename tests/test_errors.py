import pytest
from hypothesis import given
from hypothesis import strategies as st

from mbgraph.errors import DataError, MbgraphError, RunError, UnknownNameError, UsageError, nearest


@pytest.mark.parametrize(
    ("name", "choices", "expected"),
    [
        ("rmbrek", ["rmbrec", "lightgcn"], "rmbrec"),
        ("RMBRec", ["rmbrec", "lightgcn"], "rmbrec"),
        ("lightgnc", ["rmbrec", "LightGCN"], "LightGCN"),  # the choice as it is written, not lowered
        ("purchase", ["view", "cart"], None),
        ("view", [], None),
        ("", ["view"], None),
    ],
)
def test_nearest(name, choices, expected):
    assert nearest(name, choices) == expected


@given(st.lists(st.text(min_size=1), unique_by=str.lower, min_size=1), st.data())
def test_a_name_is_nearest_to_itself(choices, data):
    name = data.draw(st.sampled_from(choices))
    assert nearest(name, choices) == name


def test_message_and_remedy_are_one_line():
    error = DataError("the file is empty", "export it again")
    assert str(error) == "the file is empty; export it again"
    assert (error.message, error.remedy) == ("the file is empty", "export it again")
    assert str(DataError("the file is empty")) == "the file is empty"


def test_unknown_name_names_the_nearest_or_all():
    with pytest.raises(UnknownNameError, match=r"^unknown behavior 'veiw'; did you mean 'view'\?$"):
        raise UnknownNameError("behavior", "veiw", ["cart", "view"])
    with pytest.raises(UnknownNameError, match=r"^unknown behavior 'like'; choose from: cart, view$"):
        raise UnknownNameError("behavior", "like", ("view", "cart"))
    with pytest.raises(UnknownNameError, match=r"choose from: \(none\)$"):
        raise UnknownNameError("model", "x", [])


def test_exit_codes():
    codes = {kind: kind("what").exit_code for kind in (MbgraphError, UsageError, DataError, RunError)}
    assert codes == {MbgraphError: 1, UsageError: 2, DataError: 2, RunError: 1}
    assert UnknownNameError("model", "x", []).exit_code == 2
