"""CSV files as spreadsheets write them."""

from itertools import product

import pytest

from utseg.rawdata.tables import read_table

TEXT = "case,Größe,note\n1,a,\n2,,x\n"


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "cp1252"])
@pytest.mark.parametrize("said", ["", "sep={}\n", "SEP={}\r\n", '"sep={}"\n', "sep={}{}{}\n"])
def test_a_table_is_the_same_however_it_is_saved(tmp_path, said, encoding):
    path = tmp_path / "table.csv"
    for separator, ending, trailing in product(",;\t|" if said else ",;\t", ("\n", "\r\n"), (0, 3)):
        lines = [line + "," * trailing for line in TEXT.splitlines()]
        text = "".join(line.replace(",", separator) + ending for line in lines)
        path.write_bytes((said.replace("{}", separator) + text).encode(encoding))
        table = read_table(path)
        assert table.columns == ("case", "Größe", "note")
        assert [tuple(row.values()) for row in table.rows] == [("1", "a", ""), ("2", "", "x")]
        assert table.lines == ((3, 4) if said else (2, 3))


def test_a_big_endian_bom_is_known(tmp_path):
    path = tmp_path / "table.csv"
    path.write_bytes(("\ufeff" + TEXT).encode("utf-16-be"))
    assert read_table(path).columns == ("case", "Größe", "note")
