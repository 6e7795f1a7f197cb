"""The command `heartlane`: one file for each family of verbs."""
