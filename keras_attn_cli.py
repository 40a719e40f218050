"""The command line: a thin shell that imports keras_attn only inside commands."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

app = typer.Typer(
    help="Classic sequence-to-sequence learning on Keras 3.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)


@app.command()
def names(
    pattern: Annotated[str, typer.Argument(help="A shell pattern, such as 'attention*'.")] = "*",
) -> None:
    """List the architectures of the zoo."""
    from keras_attn import zoo

    typer.echo("\n".join(zoo.names(pattern)))


@app.command()
def card(name: Annotated[str, typer.Argument(help="An architecture.")]) -> None:
    """Show what an architecture is: equations, paper, deviations, options, parameters, recipe."""
    from keras_attn import zoo

    typer.echo(str(zoo.card(name)))


def main() -> None:
    """Run the command line; errors that a user can mend are one line."""
    try:
        app()
    except (ImportError, OSError, TypeError, ValueError) as error:
        typer.echo(f"keras-attn: {error}", err=True)
        sys.exit(2)


if __name__ == "__main__":
    main()
