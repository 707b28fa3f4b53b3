#!/usr/bin/env python3
"""Checks the licences and banned crates of deny.toml against the locked graph, where cargo-deny is not installed.

Reads `cargo tree --workspace --prefix none --format '{p}|{l}'` on standard input (`cargo metadata` lists crates that no
feature reaches). Knows the SPDX forms that occur in Cargo manifests: AND, OR, WITH, parentheses
and the old slash for OR. Prints one line per fault and exits 1 if there is any.
"""
import re
import sys
import tomllib
from pathlib import Path

rules = tomllib.loads((Path(__file__).parent.parent / "deny.toml").read_text())
allowed = set(rules["licenses"]["allow"])
banned = {entry["name"] for entry in rules["bans"]["deny"]}


def satisfied(expression: str) -> bool:
    """True when some choice of the expression uses allowed licences only."""
    tokens = re.findall(r"\(|\)|[^\s()]+", expression.replace("/", " OR "))

    def alternatives() -> bool:
        found = all_of()
        while tokens and tokens[0] == "OR":
            tokens.pop(0)
            found = all_of() or found  # parse the right side always
        return found

    def all_of() -> bool:
        found = term()
        while tokens and tokens[0] == "AND":
            tokens.pop(0)
            found = term() and found
        return found

    def term() -> bool:
        token = tokens.pop(0)
        if token == "(":
            found = alternatives()
            tokens.pop(0)
            return found
        if tokens and tokens[0] == "WITH":
            tokens.pop(0)
            token = f"{token} WITH {tokens.pop(0)}"
        return token in allowed

    return alternatives()


faults = []
packages = sorted({line.strip().removesuffix(" (*)") for line in sys.stdin if line.strip()})
for package in packages:
    name, licence = package.split("|")
    if name.split()[0] in banned:
        faults.append(f"{name}: banned in deny.toml")
    if "://" in name:
        faults.append(f"{name}: does not come from the registry")
    if not licence or not satisfied(licence):
        faults.append(f"{name}: {licence or 'no licence stated'} is not in deny.toml")
print("\n".join(faults) or f"licences and bans: {len(packages)} packages follow deny.toml")
sys.exit(1 if faults else 0)
