"""The specification counts twenty proofs: each is a test that carries its number."""

import pathlib
import re

HERE = pathlib.Path(__file__).parent
PROOFS = 20


def test_each_of_the_twenty_proofs_is_a_test_with_its_number():
    files = [*HERE.glob("test_*.py"), *(HERE.parent / "fast").glob("test_*.py")]
    text = "\n".join(path.read_text(encoding="utf-8") for path in files)
    numbers = {int(found) for found in re.findall(r"^def test_(\d+)_[a-z]", text, re.MULTILINE)}
    assert numbers == set(range(1, PROOFS + 1))
