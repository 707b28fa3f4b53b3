"""Writes the lists beside this file out of an unpacked Faker wheel: python3 extract.py FAKER_DIR. Nothing of it is imported."""

import ast
import pathlib
import re
import sys

WORD = re.compile(r"[A-Za-zÀ-ÖØ-öø-ÿĀ-ž'’\-]{2,24}")
CITIES = "cs_CZ da_DK de_AT de_CH de_DE en_BD en_IN fi_FI hr_HR hu_HU id_ID ko_KR nl_NL pl_PL pt_PT ro_RO sl_SI sv_SE".split()


def strings(path):
    """Every attribute of the classes in a file with the strings in it, keys of tables among them."""
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if not isinstance(node, ast.ClassDef):
            continue
        for line in node.body:
            target = line.targets[0] if isinstance(line, ast.Assign) else getattr(line, "target", None)
            if isinstance(target, ast.Name) and getattr(line, "value", None) is not None:
                texts = [part.value for part in ast.walk(line.value) if isinstance(part, ast.Constant)]
                yield target.id, [text for text in texts if isinstance(text, str) and "{{" not in text]


def words(texts):
    return {word for text in texts for word in text.split() if WORD.fullmatch(word) and word[0].isupper()}


def main(faker):
    providers = pathlib.Path(faker) / "faker" / "providers"
    first, last, cities, lands, jobs, streets = set(), set(), set(), set(), set(), set()
    for path in sorted(providers.glob("person/*/__init__.py")):
        for name, texts in strings(path):
            if re.search(r"first_.*names|first_names", name):
                first |= words(texts)
            elif re.search(r"last_.*names|last_names", name):
                last |= words(texts)
    for path in sorted(providers.glob("address/*/__init__.py")):
        for name, texts in strings(path):
            if path.parent.name in CITIES and re.search(r"^(real_)?(cities|city_names)$", name):
                cities |= {text for text in texts if all(WORD.fullmatch(word) for word in text.split()) and text[0].isupper()}
            if (path.parent.name == "en" and name == "countries") or (path.parent.name == "en_US" and name == "states"):
                lands |= set(texts)
            if path.parent.name == "en_US" and name == "street_suffixes":
                streets |= set(texts)
    for name, texts in strings(providers / "job" / "__init__.py"):
        jobs |= {text for text in texts if len(text) < 40} if name == "jobs" else set()
    (common,) = [set(texts) for name, texts in strings(providers / "lorem" / "en_US" / "__init__.py") if name == "word_list"]
    here = pathlib.Path(__file__).parent
    lists = {"first": first, "last": last, "cities": cities, "lands": lands, "jobs": jobs, "streets": streets, "common": common}
    for name, entries in lists.items():
        (here / f"{name}.txt").write_text("\n".join(sorted(entries)) + "\n", "utf-8")
        print(name, len(entries))


main(sys.argv[1])
