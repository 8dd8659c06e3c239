"""`python -m moaa.cli`: the command line where the script `moaa` is not on the PATH."""

from moaa.cli import main

if __name__ == "__main__":
    main()
