"""`python -m proxy`: the command `tiergate`."""

from proxy.cli import main

if __name__ == "__main__":
    main(prog_name="tiergate")
