"""What each model family is called and shaped in each format."""
