"""``python -m research.cli``: the command line without an installed script."""

from research.cli.app import program

if __name__ == "__main__":
    program()
