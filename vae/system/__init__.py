"""What surrounds a run: code of a user's own, the directories it is named from, and folders that show damage."""
