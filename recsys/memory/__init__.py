"""What the engine keeps: the collective memory of all users' moments, and each user's own life in one of five ways."""
