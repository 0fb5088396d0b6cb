"""The surroundings of a run: users' code, the directories that names are relative to, and folders that show damage."""
