"""Event logs as people have them: without a header, in other encodings, as JSON lines, in several files."""

import csv
import gzip
import io
import json

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mbgraph.data.events import from_events, import_events
from mbgraph.data.formats.events import EventFiles, read_events
from mbgraph.data.log_columns import PartColumn
from mbgraph.errors import DataError, UnknownNameError, UsageError

LOG = pd.DataFrame(
    [
        ("ann", "tea", "view", 10),
        ("ann", "tea", "buy", 50),
        ("ann", "mug", "buy", 20),
        ("bob", "tea", "buy", 30),
        ("bob", "mug", "view", 40),
        ("ann", "pot", "buy", 90),
    ],
    columns=["user", "item", "behavior", "time"],
)
WANTED = from_events(LOG, time="time", target="buy")
OPTIONS = {"time": "time", "target": "buy"}


def same(ds, wanted=WANTED):
    assert ds.content_hash() == wanted.content_hash()
    assert ds.users.ids.tolist() == wanted.users.ids.tolist()
    assert ds.items.ids.tolist() == wanted.items.ids.tolist()


def put(path, content):
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


class TestWithoutHeader:
    """``UserBehavior.csv``: user, item, category, behavior, seconds, and no header."""

    ROWS = "1,2268318,2520377,pv,1511544070\n1,2333346,2520771,buy,1511561733\n7,2333346,2520771,buy,1511561734\n"

    def test_names_are_given(self, tmp_path):
        path = put(tmp_path / "UserBehavior.csv", self.ROWS)
        ds = import_events(path, columns=["user", "item", "_", "behavior", "time"], target="buy")
        assert ds.counts == {"pv": 1, "buy": 2}
        assert ds.users.ids.tolist() == [1, 7]
        assert ds.edges["pv"].time.tolist() == [1511544070]  # a column called time is the time
        assert ds.metadata["import"]["events"] == 3
        frame = read_events(path, names=["u", "_", "_", "b", "t"])
        assert list(frame.columns) == ["u", "b", "t"]

    def test_a_header_that_looks_like_data_is_told(self, tmp_path):
        path = put(tmp_path / "UserBehavior.csv", self.ROWS)
        with pytest.raises(
            DataError,
            match=r"has no column 'user', and its first row looks like data: 1,2268318,2520377,pv,1511544070; if it "
            r"has no header, name the columns in order: --columns user,item,_,behavior,time$",
        ):
            import_events(path, target="buy")
        dated = put(tmp_path / "x.csv", "2019-10-01 00:00:00;view;7;8\n")
        with pytest.raises(DataError, match="--columns time,behavior,user,item"):
            import_events(dated, target="buy")

    def test_names_that_do_not_fit(self, tmp_path):
        path = put(tmp_path / "log.csv", self.ROWS)
        with pytest.raises(DataError, match=r"has 5 columns, 4 are named \(user, item, behavior, time\); name all in"):
            import_events(path, columns=["user", "item", "behavior", "time"], target="buy")
        with pytest.raises(UsageError, match="column 'item' is named twice; write _ for"):
            import_events(path, columns=["item", "item", "_", "behavior", "_"], target="buy")
        with pytest.raises(UsageError, match="has no name; write _"):
            import_events(path, columns=["user", "item", "", "behavior", "_"], target="buy")
        headed = put(tmp_path / "headed.csv", "u,i,b\n1,2,buy\n")
        with pytest.raises(UsageError, match=r"first row of .*headed.csv \(u, i, b\) looks like a header; leave --col"):
            import_events(headed, columns=["user", "item", "behavior"], target="buy")
        with pytest.raises(UnknownNameError, match="unknown column 'user'; choose from: a, b, c"):
            import_events(put(tmp_path / "words.csv", "a,b,c\n1,2,buy\n"), target="buy")


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-32", "gbk", "utf-16-le"])
@pytest.mark.parametrize("pack", [False, True])
def test_encodings_and_line_ends(tmp_path, end, encoding, pack):
    log = LOG.replace({"ann": "安", "tea": "茶"})
    content = log.to_csv(index=False, lineterminator=end).encode(encoding)
    path = put(tmp_path / "log", gzip.compress(content) if pack else content)
    named = encoding if encoding in ("gbk", "utf-16-le") else None
    same(import_events(path, encoding=named, **OPTIONS), from_events(log, **OPTIONS))
    assert read_events(path, encoding=named).to_dict("list") == log.to_dict("list")


@pytest.mark.parametrize("encoding", [None, "utf-8", "utf-8-sig", "UTF8"])
def test_a_mark_before_a_quoted_header(tmp_path, encoding):
    path = put(tmp_path / "log.csv", b'\xef\xbb\xbf"user","item","behavior"\n"ann","tea","buy"\n')
    assert read_events(path, encoding=encoding).to_dict("list") == {
        "user": ["ann"],
        "item": ["tea"],
        "behavior": ["buy"],
    }
    bare = put(tmp_path / "bare.csv", b"\xef\xbb\xbfann,tea,buy\n")
    assert read_events(bare, names=["user", "item", "behavior"], encoding=encoding)["user"].tolist() == ["ann"]


def test_wrong_encodings_are_told(tmp_path):
    path = put(tmp_path / "log.csv", LOG.replace("ann", "安").to_csv(index=False).encode("gbk"))
    with pytest.raises(DataError, match=r"cannot read .*log.csv as text .*; name its encoding, such as --encoding gbk"):
        import_events(path, **OPTIONS)
    with pytest.raises(DataError, match="as text .*'ascii' codec"):
        import_events(path, encoding="ascii", **OPTIONS)
    for name in ("nonsense", "base64", "undefined"):
        with pytest.raises(UsageError, match=f"unknown encoding '{name}'; utf-8, utf-16, gbk"):
            import_events(path, encoding=name, **OPTIONS)
    path = put(tmp_path / "wide.csv", LOG.to_csv(index=False).encode("utf-16-le"))
    with pytest.raises(DataError, match="neither text nor Parquet; if it is text, name its encoding, such as --enc"):
        import_events(path, **OPTIONS)
    LOG.to_parquet(tmp_path / "log.parquet")
    with pytest.raises(UsageError, match="is Parquet, which needs no encoding"):
        import_events(tmp_path / "log.parquet", encoding="gbk", **OPTIONS)


def test_blanks_after_commas(tmp_path):
    text = 'user, item, behavior, time\nann, "tea, green", buy, 1\n bob ,7 ,\tbuy, 2\nann, 7, buy, 3\n'
    frame = read_events(put(tmp_path / "log.csv", text.replace('"tea, green"', '"tea ""green"""')))
    assert frame["behavior"].tolist() == ["buy"] * 3
    assert frame["item"].tolist() == ['tea "green"', "7", "7"]
    assert frame["user"].tolist() == ["ann", "bob", "ann"]
    assert frame["time"].tolist() == [1, 2, 3]
    missing = put(tmp_path / "missing.csv", "user,item,behavior\n1, NULL,buy\n")
    with pytest.raises(DataError, match="column 'item' has 1 missing values, the first in row 1"):
        import_events(missing, target="buy")


@given(st.lists(st.tuples(*[st.text(' \tab"', max_size=4).filter(lambda text: text.strip())] * 2), min_size=1))
def test_blanks_are_stripped_as_a_loop_does(tmp_path_factory, rows):
    """Values as the csv module reads them, without blanks around them."""
    path = tmp_path_factory.mktemp("log") / "log.csv"
    with path.open("w", newline="") as file:
        csv.writer(file).writerows([("a", "b"), *rows])
    text = path.read_text()
    wanted = []
    for row in list(csv.reader(io.StringIO(text)))[1:]:
        values = [(value, value.strip(" \t")) for value in row]
        wanted.append(
            [
                bare[1:-1].replace('""', '"')
                if bare != value and len(bare) > 1 and bare[0] == bare[-1] == '"'
                else (bare.replace('""', '"') if bare != value else bare)
                for value, bare in values
            ]
        )
    found = read_events(path).astype(object)
    assert [[value for value in row] for row in found.where(found.notna(), "").to_numpy().tolist()] == wanted


class TestJsonLines:
    def test_lines(self, tmp_path):
        lines = LOG.to_json(orient="records", lines=True)
        spaced = "\n" + lines.replace('{"', '{ "')
        for name, content in (
            ("a.jsonl", lines),
            ("b", gzip.compress(lines.encode())),
            ("c", "\ufeff" + lines),
            ("d", spaced),
        ):
            path = put(tmp_path / name, content)
            assert EventFiles(path).names == ["user", "item", "behavior", "time"]
            same(import_events(path, **OPTIONS))
            same(import_events(path, chunk_rows=2, **OPTIONS))
            assert read_events(path, ["time", "user"]).to_dict("list") == LOG[["time", "user"]].to_dict("list")

    @given(
        st.lists(
            st.tuples(
                st.one_of(st.integers(-3, 3), st.sampled_from(["7", "x", 1.0, 2.5, True, None, 2**70])),
                st.sampled_from([1, 2, "1"]),
                st.sampled_from(["2024-01-31", 5, 6.5, None]),
            ),
            min_size=1,
            max_size=12,
        ),
        st.integers(1, 13),
    )
    def test_the_same_as_a_frame_of_the_objects(self, tmp_path_factory, rows, size):
        """Whatever is in the lines: the dataset, or the error, is that of the same objects in a frame."""
        path = tmp_path_factory.mktemp("log") / "log.jsonl"
        records = [
            {"user": user, "item": item, "behavior": "buy", "time": time} for user, item, time in [*rows, (1, 1, 1)]
        ]
        path.write_text("".join(json.dumps(record) + "\n\n" for record in records))
        frame = pd.DataFrame(records).astype(object).where(lambda column: column.notna(), None)
        for name in frame:
            frame[name] = pd.Series([record[name] for record in records], dtype=object)

        def outcome(make):
            try:
                ds = make()
            except (DataError, UsageError) as error:
                return str(error)
            return ds.content_hash(), ds.users.ids.tolist(), ds.edges["buy"].time.tolist()

        wanted = outcome(lambda: from_events(frame, **OPTIONS))
        assert outcome(lambda: import_events(path, chunk_rows=size, **OPTIONS)) == wanted

    def test_progress_counts_bytes(self, tmp_path):
        path = put(tmp_path / "log.jsonl", LOG.to_json(orient="records", lines=True))
        told = []
        import_events(path, chunk_rows=4, progress=lambda *args: told.append(args), **OPTIONS)
        size = path.stat().st_size
        assert told[-1] == (6, size, size)
        assert [events for events, _, _ in told] == [4, 6]

    @pytest.mark.parametrize(
        ("text", "message"),
        [
            ('{"user": 1}\n{"user": \n', "line 2 is not valid JSON: .*; write one object a line"),
            ('{"user": 1}\n[1]\n', "line 2 is no JSON object; write one object a line"),
            ('[{"user": 1},\n{"user": 2}]\n', "line 1 is not valid JSON"),
            ('{"user": 1}\n', "unknown column 'item'"),
            ('{"user": [1], "item": 1, "behavior": "buy", "time": 1}\n', "ids in column 'user' are lists"),
            ('{"user": ' + "[" * 100_000 + "\n", "log.jsonl"),
        ],
    )
    def test_broken_lines(self, tmp_path, text, message):
        with pytest.raises((DataError, UnknownNameError), match=message) as caught:
            import_events(put(tmp_path / "log.jsonl", text), **OPTIONS)
        assert "\n" not in str(caught.value)

    def test_columns_have_names(self, tmp_path):
        with pytest.raises(UsageError, match="is JSON lines, whose columns have names of their own; leave --columns"):
            import_events(put(tmp_path / "log", '{"user": 1}\n'), columns=["a"], **OPTIONS)


class TestSeveralFiles:
    def test_files_and_folders_are_one_log(self, tmp_path):
        folder = tmp_path / "months"
        folder.mkdir()
        for number, start in ((2, 0), (10, 4)):  # 10 after 2, as people number
            LOG.iloc[start : start + 4].to_csv(folder / f"part-{number}.csv", index=False)
        put(folder / "_SUCCESS.csv", "x")
        put(folder / ".part.csv.crc", "x")
        put(folder / "notes.md", "x")
        files = [folder / "part-2.csv", folder / "part-10.csv"]
        assert EventFiles(folder).paths == files
        same(import_events(files, **OPTIONS))
        same(import_events(folder, **OPTIONS))
        told = []
        ds = import_events(folder, chunk_rows=3, progress=lambda *args: told.append(args), **OPTIONS)
        same(ds)
        assert ds.name == "part-2"
        total = sum(file.stat().st_size for file in files)
        assert [told[-1][0], *told[-1][1:]] == [6, total, total]
        assert read_events(folder).to_dict("list") == LOG.to_dict("list")

    def test_a_folder_of_parquet(self, tmp_path):
        folder = tmp_path / "log.parquet" / "month=10"
        folder.mkdir(parents=True)
        LOG.iloc[:3].astype({"time": np.int32}).to_parquet(folder / "part-0.parquet")
        LOG.iloc[3:].to_parquet(folder / "part-1.snappy.parquet")
        same(import_events(tmp_path / "log.parquet", **OPTIONS))
        assert read_events(tmp_path / "log.parquet")["time"].tolist() == LOG["time"].tolist()

    def test_rows_are_named_within_their_file(self, tmp_path):
        LOG.to_csv(tmp_path / "a.csv", index=False)
        LOG.assign(time="later").to_csv(tmp_path / "b.csv", index=False)
        with pytest.raises(DataError, match="column 'time' is '10' in row 1 of a.csv, which is no time"):
            import_events([tmp_path / "a.csv", tmp_path / "b.csv"], **OPTIONS)
        LOG.assign(time="2024-01-31").to_csv(tmp_path / "a.csv", index=False)
        with pytest.raises(DataError, match="column 'time' is 'later' in row 1 of b.csv, which is no time"):
            import_events([tmp_path / "a.csv", tmp_path / "b.csv"], **OPTIONS)
        LOG.assign(item=["tea", None, None, "tea", "tea", "tea"]).to_csv(tmp_path / "b.csv", index=False)
        with pytest.raises(DataError, match="'item' has 2 missing values, the first in row 2 of b.csv; drop"):
            import_events([tmp_path / "a.csv", tmp_path / "b.csv"], chunk_rows=2, **OPTIONS)

    def test_a_number_in_one_file_is_text_where_another_needs_it(self, tmp_path):
        LOG.assign(user=7).to_csv(tmp_path / "a.csv", index=False)
        LOG.assign(user="007").to_csv(tmp_path / "b.csv", index=False)
        assert import_events([tmp_path / "a.csv", tmp_path / "b.csv"], **OPTIONS).users.ids.tolist() == ["007", "7"]
        assert read_events([tmp_path / "a.csv", tmp_path / "b.csv"])["user"].tolist() == ["7"] * 6 + ["007"] * 6

    def test_files_that_do_not_belong_together(self, tmp_path):
        LOG.to_csv(tmp_path / "a.csv", index=False)
        LOG.to_parquet(tmp_path / "b.parquet")
        with pytest.raises(DataError, match=r"b.parquet is Parquet, .*a.csv is CSV; give files of one kind"):
            import_events(tmp_path, **OPTIONS)
        LOG.drop(columns="time").to_csv(tmp_path / "c.csv", index=False)
        with pytest.raises(DataError, match=r"c.csv has no column 'time', which .*a.csv has; give files of one log"):
            import_events([tmp_path / "a.csv", tmp_path / "c.csv"], **OPTIONS)
        (tmp_path / "empty").mkdir()
        with pytest.raises(DataError, match=r"empty holds no event log; looked for files that end in .parquet"):
            import_events(tmp_path / "empty", **OPTIONS)
        with pytest.raises(UsageError, match="no event log is given"):
            import_events([], **OPTIONS)


class TestOneHot:
    FRAME = pd.DataFrame(
        {"user": [1, 1, 2, 3], "item": [5, 6, 5, 5], "view": [1, 1, 0, 0], "cart": [0, 1, 0, 1], "buy": [1, 0, 1, 0]}
    )
    LONG = pd.DataFrame(
        [(1, 5, "view"), (1, 5, "buy"), (1, 6, "view"), (1, 6, "cart"), (2, 5, "buy"), (3, 5, "cart")],
        columns=["user", "item", "behavior"],
    )

    def test_a_row_is_an_event_of_each(self, tmp_path):
        wanted = from_events(self.LONG, target="buy", behaviors=["view", "cart", "buy"])
        options = {"target": "buy", "one_hot": ["view", "cart", "buy"]}
        same(from_events(self.FRAME, behaviors=["view", "cart", "buy"], **options), wanted)
        words = self.FRAME.assign(view=["True", "true", "", "no"], cart=["0.0", "1.0", "0", "1"])
        words.to_csv(tmp_path / "log.csv", index=False)
        for size in (1, 3, 100):
            same(import_events(tmp_path / "log.csv", chunk_rows=size, **options), wanted)

    def test_rows_without_behavior_are_counted_and_rows_named(self, tmp_path):
        frame = self.FRAME.assign(buy=[1, 0, 0, 0], view=[1, 1, 0, 2])
        frame.to_csv(tmp_path / "log.csv", index=False)
        options = {"target": "buy", "one_hot": ["cart", "buy"]}
        facts = import_events(tmp_path / "log.csv", **options).metadata["import"]
        assert (facts["events"], facts["rows_without_behavior"]) == (3, 1)
        with pytest.raises(DataError, match="column 'view' is '2' in row 4, neither 0 nor 1; write 1 where"):
            import_events(tmp_path / "log.csv", target="buy", one_hot=["view", "buy"], chunk_rows=3)
        late = frame.assign(time=[1, 1, 1, "x"])
        late.to_csv(tmp_path / "log.csv", index=False)
        with pytest.raises(DataError, match="column 'time' is '1' in row 1, which is no time"):
            import_events(tmp_path / "log.csv", time="time", **options)
        late.assign(item=[5, 6, 5, None]).to_csv(tmp_path / "log.csv", index=False)
        with pytest.raises(DataError, match="column 'item' has 1 missing values, the first in row 4"):
            import_events(tmp_path / "log.csv", **options)

    def test_arguments(self):
        with pytest.raises(UsageError, match="one_hot names no column"):
            from_events(self.FRAME, target="buy", one_hot=[])
        with pytest.raises(UnknownNameError, match=r"unknown column 'veiw'; did you mean 'view'\?"):
            from_events(self.FRAME, target="buy", one_hot=["veiw", "buy"])
        with pytest.raises(UsageError, match="a column called 'behavior' cannot stand beside"):
            from_events(self.FRAME, user="behavior", target="buy", one_hot=["view", "buy"])


class TestNamesOfBehaviors:
    def test_rename(self, tmp_path):
        log = LOG.replace({"view": "1", "buy": "4"})
        log.to_csv(tmp_path / "log.csv", index=False)
        for size in (1, 100):
            ds = import_events(tmp_path / "log.csv", rename={"1": "view", "4": "buy"}, chunk_rows=size, **OPTIONS)
            same(ds)
        merged = pd.concat([LOG, LOG.iloc[:1].assign(behavior="pv", item="cup")])
        ds = from_events(merged, rename={"pv": "view"}, **OPTIONS)
        assert ds.counts["view"] == 3
        with pytest.raises(UnknownNameError, match="unknown behavior to rename 'veiw'; did you mean 'view'"):
            from_events(LOG, rename={"veiw": "look"}, **OPTIONS)

    def test_names_that_cannot_be_files_are_refused_when_met(self, tmp_path):
        rows = LOG.replace("view", "product/view")
        path = tmp_path / "log.csv"
        pd.concat([rows] * 3).to_csv(path, index=False)
        told = []
        with pytest.raises(
            DataError, match=r"'product/view' cannot be a file name; rename it: --rename 'product/view=product_view'"
        ):
            import_events(path, chunk_rows=3, progress=lambda *args: told.append(args), **OPTIONS)
        assert len(told) <= 1  # the first piece told it
        same(import_events(path, rename={"product/view": "view"}, **OPTIONS))
        assert import_events(path, behaviors=["buy"], **OPTIONS).behaviors == ("buy",)
        LOG.replace("view", "valid").to_csv(path, index=False)
        with pytest.raises(DataError, match="cannot be called 'valid', which is a split; rename it: --rename 'valid=v"):
            import_events(path, **OPTIONS)


class TestTimes:
    NS = 1_511_544_070_123_456_789

    @pytest.mark.parametrize("size", [1, 2, 100])
    def test_nanoseconds_with_a_nought_keep_their_order(self, tmp_path, size):
        times = [f"{self.NS + step}.0" for step in (0, 2, 1)]
        frame = pd.DataFrame({"user": 1, "item": [1, 2, 3], "behavior": "buy", "time": times})
        for mixed in (frame, frame.assign(time=[times[0], times[1][:-2], times[2]])):
            mixed.to_csv(tmp_path / "log.csv", index=False)
            ds = import_events(tmp_path / "log.csv", chunk_rows=size, **OPTIONS)
            assert ds.items[ds.test.item].tolist() == [2]
            assert ds.test.time.tolist() == [self.NS + 2]
            assert from_events(mixed, **OPTIONS).content_hash() == ds.content_hash()

    def test_fractions_that_would_be_lost_are_refused(self):
        frame = pd.DataFrame({"user": 1, "item": [1, 2], "behavior": "buy", "time": [f"{self.NS}.5", "1"]})
        with pytest.raises(
            DataError, match=r"'time' holds '1511544070123456789.5' beside numbers of more than 53 bits"
        ):
            from_events(frame, **OPTIONS)
        small = frame.assign(time=["1.5", "2.0"])
        assert from_events(small, split="none", **OPTIONS).edges["buy"].time.tolist() == [1.5, 2.0]
        powers = frame.assign(time=["1e18", "2e18"])
        assert from_events(powers, split="none", **OPTIONS).edges["buy"].time.tolist() == [1e18, 2e18]

    def test_every_name_of_the_validation_part(self):
        for label in ("valid", "val", "validation", "Valid"):
            column = PartColumn("part")
            column.add(pd.Series([label, "train", "test"]), lambda at: at + 1, np.ones(3, bool), None)
            assert column.take().tolist() == [1, 0, 2]


class TestTies:
    """All events of a day have one time."""

    DAYS = pd.DataFrame(
        {
            "user": np.repeat(np.arange(200), 4),
            "item": list(range(4)) * 200,
            "behavior": "buy",
            "time": [1, 2, 2, 2] * 200,
        }
    )

    def test_later_rows_or_a_draw(self):
        rows = from_events(self.DAYS, **OPTIONS)
        assert set(rows.test.item.tolist()) == {3}
        assert rows.metadata["splits"][0] == {
            "act": "split",
            "protocol": "loo",
            "by": "time",
            "ties": "rows",
            "users_with_ties": 200,
            "cutoff": "none",
        }
        drawn = from_events(self.DAYS, ties="random", rng=3, **OPTIONS)
        counts = np.bincount(drawn.test.item, minlength=4)
        assert counts[0] == 0
        assert counts[1:].min() > 40  # 67 expected
        assert drawn.metadata["splits"][0]["ties"] == "random"
        assert drawn.metadata["splits"][0]["seed"] == 3
        mixed = self.DAYS.sample(frac=1, random_state=1)
        assert from_events(mixed, ties="random", rng=3, **OPTIONS).content_hash() == drawn.content_hash()
        with pytest.raises(UnknownNameError, match="unknown rule for ties 'row'; did you mean 'rows'"):
            from_events(self.DAYS, ties="row", **OPTIONS)

    def test_ties_within_one_part_decide_nothing(self):
        frame = self.DAYS.assign(time=[1, 1, 2, 3] * 200)
        assert from_events(frame, **OPTIONS).metadata["splits"][0]["users_with_ties"] == 0


def test_recbole_headers_lose_their_types(tmp_path):
    names = {"user": "user_id:token", "item": "item_id:token", "behavior": "behavior:token", "time": "timestamp:float"}
    LOG.rename(columns=names).to_csv(tmp_path / "shop.inter", sep="\t", index=False)
    assert EventFiles(tmp_path / "shop.inter").names == ["user_id", "item_id", "behavior", "timestamp"]
    same(import_events(tmp_path / "shop.inter", time="timestamp", target="buy"))
    with pytest.raises(UnknownNameError, match="unknown column 'user'; did you mean 'user_id'"):
        import_events(tmp_path / "shop.inter", user="user", target="buy")
