"""``python -m bench reliability``: measures sections of ``docs/reliability.md``, writes them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Final

import click

from bench.reliability.document import replace_section
from bench.reliability.sections import SECTIONS

DOCUMENT: Final = Path(__file__).parents[2] / "docs" / "reliability.md"


@click.command()
@click.argument("sections", nargs=-1, metavar="[SECTION]...")
@click.option("--list", "is_list", is_flag=True, help="Name the sections.")
@click.option("--smoke", is_flag=True, help="Measure small: whether it works, no figures.")
@click.option(
    "--document",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    default=DOCUMENT,
    help="The document to write; docs/reliability.md by default.",
)
def reliability(sections: Sequence[str], is_list: bool, smoke: bool, document: Path) -> None:
    """Measure sections of docs/reliability.md, all by default, and write the results there."""
    if unknown := [name for name in sections if name not in SECTIONS]:
        raise click.UsageError(f"no section {unknown[0]!r}; there are {', '.join(SECTIONS)}.")
    if is_list:
        for name, section in SECTIONS.items():
            click.echo(f"{name:14} {(section.__doc__ or '').splitlines()[0]}")
        return
    for name in sections or SECTIONS:
        click.echo(f"measuring {name} ...", err=True)
        body = SECTIONS[name](smoke)
        document.write_text(replace_section(document.read_text(), name, body))
        click.echo(body)
