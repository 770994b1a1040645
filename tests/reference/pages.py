"""What stands in `docs/reference/`: every public name, with its signature and its docstring.

Rules of this file: what stands on the pages is what stands in the source. Left out is what begins
with an underscore or whose docstring begins with "Internal:"; a class whose docstring says "Made
by" is shown without its constructor.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import Final, NamedTuple

import griffe

import evener
import evener_worker
from evener.cli.group import COMMANDS
from tests.reference.commands import commands_page
from tests.reference.signatures import code
from tests.support import ROOT

FOLDER: Final = ROOT / "docs" / "reference"
RENEW: Final = "make reference"
INTERNAL: Final = "Internal:"

MODULES: Final = {
    "evener": "Clusters, apps, tasks",
    "evener_worker": "Pools inside a program",
    "evener_worker.child": "Programs that a `CommandWorker` starts",
}
PUBLIC: Final = {*evener.__all__, *evener_worker.__all__}


class Entry(NamedTuple):
    """A name on a page: `path` is how it is imported and what its anchor is."""

    path: str
    item: griffe.Object
    kind: str
    members: Sequence[Entry] = ()

    @property
    def name(self) -> str:
        """Without its module."""
        module = next(m for m in sorted(MODULES, reverse=True) if self.path.startswith(f"{m}."))
        return self.path.removeprefix(f"{module}.")

    @property
    def text(self) -> str:
        """Its docstring."""
        return self.item.docstring.value if self.item.docstring else ""


# --- What there is --------------------------------------------------------------------------------


@cache
def load() -> griffe.ModulesCollection:
    """The source, read and not imported; once, because that takes seconds."""
    roots = [ROOT / name for name in ("wire", "broker", "client", "worker")]
    loader = griffe.GriffeLoader(search_paths=roots)
    for package in ("evener_wire", "evener", "evener_worker"):
        loader.load(package)
    loader.resolve_aliases(implicit=True, external=False)
    return loader.modules_collection


def entries(module: griffe.Module) -> list[Entry]:
    """The public names of a module, those of its `__all__` or else its functions."""
    names = [str(name) for name in module.exports or []] or [
        name for name, item in module.functions.items() if not name.startswith("_")
    ]
    return [entry(f"{module.path}.{name}", _target(module[name])) for name in names]


def entry(path: str, item: griffe.Object) -> Entry:
    """A name with its members."""
    if not isinstance(item, griffe.Class):
        return Entry(path, item, "function" if item.is_function else "value")
    kind = "error" if _is_error(item) else "class"
    return Entry(path, item, kind, [*_members(path, item)])


def _members(path: str, owner: griffe.Class) -> Iterator[Entry]:
    """Its own, and those that it has from classes which are on no page."""
    inherited = {name: item for name, item in owner.inherited_members.items() if _own(item, owner)}
    found = {**inherited, **owner.members}
    for name, member in sorted(found.items(), key=lambda pair: pair[0] not in owner.members):
        item = _target(member)
        if name.startswith("_") or name.isupper() or not item.path.startswith("evener"):
            continue
        if _is_internal(item):
            continue
        if item.is_function or "property" in item.labels:
            yield Entry(f"{path}.{name}", item, "function" if item.is_function else "attribute")
        elif item.docstring is not None or name in _fields(owner):
            yield Entry(f"{path}.{name}", item, "attribute")


def _is_internal(item: griffe.Object) -> bool:
    return item.docstring is not None and item.docstring.value.startswith(INTERNAL)


def _own(item: griffe.Object | griffe.Alias, owner: griffe.Class) -> bool:
    giver = _target(item).parent
    return giver is None or giver.name not in _public_bases(owner)


def _public_bases(owner: griffe.Class) -> list[str]:
    """Names of the public classes that it is a kind of."""
    bases = [str(base).partition("[")[0] for base in owner.bases]
    return [base for base in bases if base in PUBLIC]


def _target(item: griffe.Object | griffe.Alias) -> griffe.Object:
    return item.final_target if isinstance(item, griffe.Alias) else item


def _is_error(item: griffe.Class) -> bool:
    bases = [str(base) for base in item.bases]
    return "Exception" in bases or any(
        isinstance(base, griffe.Class) and _is_error(base) for base in item.resolved_bases
    )


def _constructor(owner: griffe.Class) -> griffe.Function | None:
    found = owner.all_members.get("__init__")
    made = _target(found) if found is not None else None
    return made if isinstance(made, griffe.Function) else None


def _is_made_by_users(owner: griffe.Class) -> bool:
    made = _constructor(owner)
    if made is None or not made.path.startswith("evener") or "dataclass" in owner.labels:
        return False
    text = owner.docstring.value if owner.docstring is not None else ""
    return not _is_error(owner) and "Made by" not in text


def _fields(owner: griffe.Class) -> dict[str, str]:
    """What instances have, with its type: fields of dataclasses and typed dicts, arguments kept."""
    types = {
        name: str(member.annotation)
        for name, member in owner.members.items()
        if isinstance(member, griffe.Attribute)
        if member.annotation is not None and str(member.annotation) != "Final"
    }
    made = _constructor(owner)
    for parameter in made.parameters if made is not None else ():
        kept = owner.all_members.get(parameter.name)
        value = getattr(_target(kept), "value", None) if kept is not None else None
        if parameter.annotation is not None and str(value) == parameter.name:
            types.setdefault(parameter.name, str(parameter.annotation))
    return types


# --- How it is shown ------------------------------------------------------------------------------


def pages() -> dict[str, str]:
    """All pages by their file's name."""
    collection = load()
    found = {name: entries(collection[name]) for name in MODULES}
    _with_types(found, collection)
    known = {item.path: name for name, all_of in found.items() for item in _flat(all_of)}
    made = {f"{name}.md": _page(name, all_of, known) for name, all_of in found.items()}
    made["commands.md"] = commands_page()
    made["README.md"] = _index(found)
    return made


def _with_types(found: dict[str, list[Entry]], collection: griffe.ModulesCollection) -> None:
    """Add what signatures name and is not public itself, where it is named first."""
    known = {item.item.path for all_of in found.values() for item in _flat(all_of)}
    for module, all_of in found.items():
        for item in _flat(all_of):  # grows meanwhile, by what the added ones name
            for path in _named_in(item.item):
                if path.endswith((".args", ".kwargs")):
                    continue  # of a ParamSpec
                kind = _target(collection[path])
                if not _is_internal(kind) and kind.docstring and kind.path not in known:
                    known.add(kind.path)
                    all_of.append(entry(f"{module}.{kind.name}", kind)._replace(kind="type"))


def _named_in(item: griffe.Object) -> Iterator[str]:
    """Paths of the names of ours in its annotations."""
    annotations: list[object] = [getattr(item, "annotation", None)]
    if isinstance(item, griffe.Class) and _is_made_by_users(item):
        item = _constructor(item) or item
    if isinstance(item, griffe.Function):
        for one in [*(item.overloads or []), item]:
            annotations += [one.returns, *(parameter.annotation for parameter in one.parameters)]
    for annotation in annotations:
        if isinstance(annotation, griffe.Expr):
            for part in annotation.iterate(flat=True):
                if isinstance(part, griffe.ExprName) and part.canonical_path.startswith("evener"):
                    yield part.canonical_path


def _flat(all_of: Iterable[Entry]) -> Iterator[Entry]:
    for item in all_of:
        yield item
        yield from item.members


_GROUPS: Final = (
    ("function", "Functions"),
    ("class", "Classes"),
    ("error", "Errors"),
    ("value", "Values"),
    ("type", "Types that signatures name"),
)


def _index(found: dict[str, list[Entry]]) -> str:
    parts = [
        "# Reference\n",
        f"Drawn from the docstrings by `{RENEW}`; a test fails when they differ. The pages around",
        "this folder tell how things are used.\n",
    ]
    for module, all_of in found.items():
        parts.append(f"## [`{module}`]({module}.md): {MODULES[module]}\n\n| | |\n|---|---|")
        for kind, _ in _GROUPS:
            parts += [
                f"| [`{item.name}`]({module}.md#{item.path}) | {_cell(item.text)} |"
                for item in all_of
                if item.kind == kind
            ]
        parts.append("")
    parts.append("## [The `evener` command](commands.md)\n")
    return "\n".join(parts)


def _cell(text: str) -> str:
    return " ".join(text.partition("\n\n")[0].split()).replace("|", "\\|")


def _page(module: str, all_of: list[Entry], known: dict[str, str]) -> str:
    docstring = import_module(module).__doc__ or ""
    parts = [f"# `{module}`\n", docstring.partition("\n\nRules of")[0].strip(), ""]
    for kind, heading in _GROUPS:
        chosen = [item for item in all_of if item.kind == kind]
        if chosen:
            parts.append(f"## {heading}\n")
            parts += [_section(item, known) for item in chosen]
    return "\n".join(parts)


def _section(item: Entry, known: dict[str, str]) -> str:
    parts = [f'### <a id="{item.path}"></a>`{item.name}`\n']
    if isinstance(item.item, griffe.Class):
        parts += _class(item, item.item, known)
    elif isinstance(item.item, griffe.Function):
        parts.append(code(item.item, item.name))
    elif isinstance(item.item, griffe.Attribute) and item.kind == "type":
        parts.append(f"```python\n{item.name} = {item.item.value}\n```\n")
    parts.append(_linked(item, known))
    attributes = [member for member in item.members if member.kind == "attribute"]
    if attributes and isinstance(item.item, griffe.Class):
        parts.append("| attribute | type | |\n|---|---|---|")
        parts += [_attribute(member, item.item, known) for member in attributes]
        parts.append("")
    for member in item.members:
        if isinstance(member.item, griffe.Function):
            parts.append(f'#### <a id="{member.path}"></a>`{member.name}`\n')
            parts.append(code(member.item, member.item.name))
            parts.append(_linked(member, known))
    return "\n".join(parts)


def _class(item: Entry, owner: griffe.Class, known: dict[str, str]) -> Iterator[str]:
    made = _constructor(owner)
    if made is not None and _is_made_by_users(owner):
        yield code(made, item.name)
    bases = [str(base) for base in owner.bases] if _is_error(owner) else _public_bases(owner)
    shown = [f"`{base}`" for base in bases if not base.startswith("_")]
    if shown:
        yield _links(f"A kind of {' and '.join(shown)}.\n", item, known)


def _attribute(member: Entry, owner: griffe.Class, known: dict[str, str]) -> str:
    annotation = getattr(member.item, "annotation", None)
    kind = str(annotation) if annotation is not None else "Final"
    if kind == "Final":
        kind = _fields(owner).get(member.item.name, "")
    shown = f"`{kind}`".replace("|", "\\|") if kind else ""
    anchor = f'<a id="{member.path}"></a>'
    return f"| {anchor}`{member.item.name}` | {shown} | {_cell(_linked(member, known))} |"


# --- Docstrings -----------------------------------------------------------------------------------

_NAMED: Final = re.compile(r"`([^`]+)`")


def _linked(item: Entry, known: dict[str, str]) -> str:
    """The docstring, its names as links; paragraphs that are indented are code."""
    paragraphs = [
        text if text.startswith("    ") else _links(text, item, known)
        for text in item.text.split("\n\n")
    ]
    return "\n\n".join(paragraphs) + "\n"


def _links(text: str, item: Entry, known: dict[str, str]) -> str:
    return _NAMED.sub(lambda match: _link(match, item, known), text)


def _link(match: re.Match[str], item: Entry, known: dict[str, str]) -> str:
    name = match[1].removesuffix("()")
    if name.startswith("docs/") and (ROOT / name).exists():
        return f"[{name}](../{name.removeprefix('docs/')})"
    if name.startswith("evener "):
        word = name.split()[1]
        return f"[{match[0]}](commands.md#{word})" if word in COMMANDS else match[0]
    owner = item.path if item.kind in ("class", "error") else item.path.rpartition(".")[0]
    parameters = getattr(item.item, "parameters", ())
    if "." not in name and any(parameter.name == name for parameter in parameters):
        return match[0]
    for path in (f"{owner}.{name}", *(f"{module}.{name}" for module in MODULES), name):
        if path in known and path != item.path:
            return f"[{match[0]}]({known[path]}.md#{path})"
    return match[0]


def stale() -> list[Path]:
    """The files that differ from what they should be, are missing, or are too many."""
    made = {FOLDER / name: text for name, text in pages().items()}
    there = {path: path.read_text(encoding="utf-8") for path in FOLDER.glob("*.md")}
    return sorted(path for path in made.keys() | there.keys() if made.get(path) != there.get(path))
