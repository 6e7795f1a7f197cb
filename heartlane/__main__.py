"""`python -m heartlane …` is the same program as the command `heartlane …`."""

from heartlane.cli.main import main

if __name__ == "__main__":
    main()
