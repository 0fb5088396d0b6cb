"""``python -m research.cli``: the command line without an installed script."""

from research.cli.app import main

if __name__ == "__main__":
    main()
